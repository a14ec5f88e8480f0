"""
What a worker process would do: a separate process imports the user's app, and runs nothing.

Decides what `amqpworker worker --check` checks; the process of the command imports no user code.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from pydantic import BaseModel

from amqpworker.app import App
from amqpworker.broker.address import addresses
from amqpworker.errors import AmqpWorkerError
from amqpworker.ipc.ending import exit_now
from amqpworker.log.redaction import redact_text
from amqpworker.settings import mistyped
from amqpworker.task import Task
from amqpworker.worker.app_loader import import_error, load_app
from amqpworker.worker.options import WorkerOptions
from amqpworker.worker.subscriptions import QueueAssignment, long_tasks, queue_assignments
from amqpworker.worker.task_processes import TaskProcesses

# Folders that hold packages and are not packages themselves, by convention.
SOURCE_FOLDERS = {"src", "lib", "source", "python"}


class Checked(BaseModel):
    """The result of a check: `problem` is why nothing would run."""

    problem: str = ""
    queues: tuple[QueueAssignment, ...] = ()
    warnings: tuple[str, ...] = ()
    drain_timeout: float = 0.0


def _checked(options: WorkerOptions) -> Checked:
    try:
        app = load_app(options.app)
        addresses(app.url)
        served = queue_assignments(app, options)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a module raises is the answer
        return Checked(problem=problem_of(error, options.app))
    timeout = app.settings.drain_timeout if options.drain_timeout is None else options.drain_timeout
    return Checked(queues=tuple(served), warnings=tuple(_find_warnings(app, served, timeout)), drain_timeout=timeout)


def problem_of(error: BaseException, app: str) -> str:
    """Return why an app cannot run; if its own code has raised this error, its traceback is written to standard error."""
    if isinstance(error, AmqpWorkerError):
        return redact_text(str(error))
    sys.stderr.write(redact_text("".join(traceback.format_exception(error))))
    return str(import_error(app, error))


def _find_warnings(app: App, served: Sequence[QueueAssignment], drain_timeout: float) -> list[str]:
    found = [
        f"Queue {one.queue!r} has a prefetch of {one.prefetch}, below its {one.threads} threads: some of them never run."
        for one in served
        if one.idles
    ]
    found += _name_warnings(app.tasks, served)
    timeout = app.settings.ack_timeout
    queues = {one.queue for one in served}
    for task in (one for one in long_tasks(app) if one.queue in queues):
        last = f"Task {task.name!r} may run for {task.time_limit.last:g} s"
        found.append(f"{last}, beyond the ack timeout of {timeout:g} s: the broker redelivers its message meanwhile.")
    if drain_timeout > timeout:
        found.append(f"The drain timeout of {drain_timeout:g} s is beyond the ack timeout of {timeout:g} s.")
    return found + mistyped_settings()


def mistyped_settings() -> list[str]:
    """Return a warning for each variable of the environment that is almost a setting."""
    return [f"{name} is not a setting: did you mean {meant}?" for name, meant in mistyped(os.environ).items()]


def _name_warnings(tasks: Mapping[str, Task[Any, Any]], served: Sequence[QueueAssignment]) -> list[str]:
    found = [
        f"No task names queue {one.queue!r}: is each module that defines tasks imported, or named in App(modules=[…])?"
        for one in served
        if all(task.queue != one.queue for task in tasks.values())
    ]
    folders = sorted({name.partition(".")[0] for name in tasks} & SOURCE_FOLDERS)
    return found + [
        f"Task names begin with {folder!r}, which is not a package: a producer that imports the modules from inside it sends "
        f"tasks by other names. Start the worker in {folder}, or install the project."
        for folder in filter(_is_plain_folder, folders)
    ]


def _is_plain_folder(module: str) -> bool:
    found = sys.modules.get(module)
    return found is not None and getattr(found, "__file__", None) is None and hasattr(found, "__path__")


def main(arguments: Sequence[str], check: Callable[[str], BaseModel]) -> NoReturn:
    """Check the options in the first argument (JSON), and write the result as a line to the descriptor in the second."""
    descriptor = int(arguments[1])
    os.set_inheritable(descriptor, False)
    # What the user's code prints is not what our caller prints.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    children = TaskProcesses()
    found = check(arguments[0])
    children.end()
    os.write(descriptor, found.model_dump_json().encode() + b"\n")
    exit_now(0)


if __name__ == "__main__":
    main(sys.argv[1:], lambda options: _checked(WorkerOptions.model_validate_json(options)))
