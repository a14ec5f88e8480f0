"""
What a scheduler process would do: a separate process imports the user's app, reads its schedules, and sends nothing.

Decides what `amqpworker scheduler --check` checks, in the way of `worker.dry_run`.
"""

from __future__ import annotations

import sys
import time

from pydantic import BaseModel

from amqpworker.broker.address import addresses
from amqpworker.model.headers import time_text
from amqpworker.routing.topology import check_scheduler_name
from amqpworker.scheduler.scheduler_assembly import schedules_of
from amqpworker.scheduler.scheduler_options import SchedulerOptions
from amqpworker.schedules.definition import Schedule
from amqpworker.worker.app_loader import load_app
from amqpworker.worker.dry_run import main, mistyped_settings, problem_of


class CheckedSchedule(BaseModel):
    """A schedule as it is shown; `next` is the next time in UTC, None if there is none."""

    name: str
    task: str
    queue: str
    timing: str
    next: str | None


class CheckedSchedules(BaseModel):
    """The result of a check: `problem` is why nothing would run."""

    problem: str = ""
    schedules: tuple[CheckedSchedule, ...] = ()
    warnings: tuple[str, ...] = ()


def _checked(options: SchedulerOptions) -> CheckedSchedules:
    try:
        app = load_app(options.app)
        addresses(app.url)
        check_scheduler_name(options.name, app.plan.names.namespace)
        schedules = schedules_of(app, options)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a module raises is the answer
        return CheckedSchedules(problem=problem_of(error, options.app))
    now = int(time.time() * 1000)
    shown = tuple(_shown(schedule, now) for schedule in schedules.values())
    return CheckedSchedules(schedules=shown, warnings=tuple(mistyped_settings()))


def _shown(schedule: Schedule, now: int) -> CheckedSchedule:
    message, then = schedule.message, schedule.timing.after(now)
    return CheckedSchedule(
        name=schedule.name,
        task=message.task,
        queue=message.queue,
        timing=str(schedule.timing),
        next=None if then is None else time_text(then),
    )


if __name__ == "__main__":
    main(sys.argv[1:], lambda options: _checked(SchedulerOptions.model_validate_json(options)))
