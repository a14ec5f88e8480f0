"""The schedules of an app, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from amqpworker.errors import ConfigError, InvalidArguments
from amqpworker.policies.foreign_names import SCHEDULE_OPTIONS, refuses_foreign
from amqpworker.schedules.definition import Misfire, Overlap, Schedule

if TYPE_CHECKING:
    from amqpworker.task import RemoteTask, Task

T = TypeVar("T", bound="RemoteTask[..., Any]")


class AppSchedules:
    """The methods of an `App` for schedules."""

    results: str | None
    tasks: Mapping[str, Task[Any, Any]]
    schedules: dict[str, Schedule]
    unfinished_schedules: dict[str, str]
    """By name, the task of each `task.schedule(…)` whose result was not called yet."""

    @refuses_foreign(SCHEDULE_OPTIONS)
    def schedule(  # noqa: PLR0913 - keyword options are the interface here
        self,
        name: str,
        *,
        cron: str | None = None,
        every: float | timedelta | None = None,
        tz: str = "UTC",
        start: datetime | None = None,
        end: datetime | None = None,
        jitter: float | timedelta = 0,
        overlap: Overlap = "allow",
        misfire: Misfire = "once",
        grace: float | timedelta = 60,
    ) -> Callable[[T], T]:
        """
        Send a task without arguments at certain times; `task.schedule(…)(…)` has the same options, and takes arguments.

        Raises:
            ConfigError: the value of an option is not valid, the name is taken, or the task needs arguments.

        Example:
            @app.schedule("nightly", cron="30 2 * * *", tz="Europe/Paris")
            @app.task
            def clean_up() -> None: ...
        """

        def register(task: T) -> T:
            if not callable(getattr(task, "schedule", None)):
                raise ConfigError(f"schedule({name!r:.60}): write it above @app.task(…): it takes a task.")
            add = task.schedule(
                name,
                cron=cron,
                every=every,
                tz=tz,
                start=start,
                end=end,
                jitter=jitter,
                overlap=overlap,
                misfire=misfire,
                grace=grace,
            )
            try:
                add()
            except InvalidArguments as error:
                raise ConfigError(
                    f"Schedule {name!r}: task {task.name!r} needs arguments: write task.schedule(…)(…) below it."
                ) from error
            return task

        return register

    def add_schedule(self, schedule: Schedule) -> None:
        """
        Add a schedule, which `task.schedule(…)(…)` does itself.

        Raises:
            ConfigError: its name is taken, or its overlap is "skip" and the results of its task are not stored.
        """
        check_schedule(schedule, self, self.schedules)
        self.schedules[schedule.name] = schedule


def check_schedule(schedule: Schedule, app: AppSchedules, others: Mapping[str, Schedule]) -> None:
    """Check a schedule against others of its app; raises ConfigError as `add_schedule` does."""
    name, task = schedule.name, schedule.message.task
    if (other := others.get(name)) is not None:
        raise ConfigError(
            f"Two schedules have the name {name!r}, those of the tasks {other.message.task!r} and {task!r}: "
            f"give one of them another name."
        )
    if schedule.overlap != "skip":
        return
    if app.results is None:
        raise ConfigError(f"Schedule {name!r}: overlap='skip' needs a result store: App(results=…).")
    known = app.tasks.get(task)
    if known is not None and not known.stores_result:
        raise ConfigError(f"Schedule {name!r}: overlap='skip' needs results, and {task!r} has result=False.")
