"""
`amqpworker queues pause`, `resume` and `paused`, and the same of `amqpworker tasks`.

Decides what is shown; `client.queue_control` decides which names are valid.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from amqpworker.cli.output import console, table, write, write_json
from amqpworker.cli.shared import AsJson, app_option, closing_app, examples, load, quiet
from amqpworker.log.terminal import print_error, printable

if TYPE_CHECKING:
    from amqpworker.client.queue_control import QueueControl
    from amqpworker.model.paused import Kind

AppWithName = Annotated[str, app_option("The app that has the queue or task.")]
QueueName = Annotated[str, typer.Argument(metavar="NAME", help="The queue's name.")]
TaskName = Annotated[str, typer.Argument(metavar="NAME", help="The task's name.")]


def add_pause_commands(queues: typer.Typer, tasks: typer.Typer) -> None:
    """Add the commands to those about queues and about tasks."""
    queues.command("pause", epilog=examples("amqpworker queues pause emails --app shop.tasks:app"))(pause_queue)
    queues.command("resume", epilog=examples("amqpworker queues resume emails --app shop.tasks:app"))(resume_queue)
    queues.command("paused", epilog=examples("amqpworker queues paused --app shop.tasks:app --json"))(list_paused)
    name = "shop.tasks.send_welcome"
    tasks.command("pause", epilog=examples(f"amqpworker tasks pause {name} --app shop.tasks:app"))(pause_task)
    tasks.command("paused", epilog=examples("amqpworker tasks paused --app shop.tasks:app"))(list_paused)
    tasks.command("resume", epilog=examples(f"amqpworker tasks resume {name} --app shop.tasks:app"))(resume_task)


def pause_queue(name: QueueName, app: AppWithName, as_json: AsJson = False) -> None:
    """
    Pause a queue in all workers, on all hosts, until it is resumed.

    Nothing of it starts any more, and what runs continues. Messages stay in the queue; calls time out.

    Exit codes: 0 it is paused, 1 not confirmed in time, 2 it could not be done.
    """
    with _control(app) as control:
        changed = control.pause(name)
    _show("queue", name, "paused", changed, as_json)


def resume_queue(name: QueueName, app: AppWithName, as_json: AsJson = False) -> None:
    """
    Resume a queue that is paused.

    Exit codes: 0 it is not paused, 1 not confirmed in time, 2 it could not be done.
    """
    with _control(app) as control:
        changed = control.resume(name)
    _show("queue", name, "resumed", changed, as_json)


def pause_task(name: TaskName, app: AppWithName, as_json: AsJson = False) -> None:
    """
    Pause a task in all workers, on all hosts, until it is resumed.

    None starts any more, and those that run continue. Other tasks of its queue run. Its messages wait outside of the queue, in steps of 64 s; calls time out. `amqpworker queues paused` lists paused tasks, too.

    Exit codes: 0 it is paused, 1 not confirmed in time, 2 it could not be done.
    """
    with _control(app) as control:
        changed = control.pause_task(name)
    _show("task", name, "paused", changed, as_json)


def resume_task(name: TaskName, app: AppWithName, as_json: AsJson = False) -> None:
    """
    Resume a task that is paused. Its messages start within 64 s.

    Exit codes: 0 it is not paused, 1 not confirmed in time, 2 it could not be done.
    """
    with _control(app) as control:
        changed = control.resume_task(name)
    _show("task", name, "resumed", changed, as_json)


def list_paused(app: AppWithName, as_json: AsJson = False) -> None:
    """
    List the queues and tasks that are paused, and since when, in UTC.

    Exit codes: 0 listed, also if there are none; 2 it could not be read.
    """
    quiet()
    found = load(app)
    control = found.queues
    with closing_app(found):
        paused = control.paused()
    kinds: tuple[Kind, Kind] = ("queue", "task")
    rows = [(kind, name, since) for kind in kinds for name, since in sorted(paused.of(kind).items())]
    if as_json:
        write_json([{"kind": kind, "name": name, "since": since} for kind, name, since in rows])
    elif not rows:
        why = ": nothing ever was, or the stream was deleted" if control.stream_was_empty else ""
        write(f"Nothing is paused{why}.")
    else:
        shown = table("paused", "name", "since")
        for row in rows:
            shown.add_row(*map(printable, row))
        console().print(shown)


@contextmanager
def _control(target: str) -> Iterator[QueueControl]:
    """
    Yield what changes the pauses of an app, and report at the end if their stream was empty.

    A program cannot distinguish a stream that was deleted from a new one, but a person can.
    """
    quiet()
    found = load(target)
    control = found.queues
    with closing_app(found):
        yield control
    if control.stream_was_empty:
        print_error(
            f"The stream {found.plan.names.control!r} was empty before, as it is until the first change. If it was deleted, what else "
            f"was paused is resumed now, also in running workers: pause it again."
        )


def _show(kind: Kind, name: str, state: str, changed: bool, as_json: bool) -> None:
    if as_json:
        write_json([{kind: name, "paused": state == "paused", "changed": changed}])
    elif changed:
        write(f"The {kind} {printable(name)!r} is {state}.")
    else:
        write(f"The {kind} {printable(name)!r} is {'paused already' if state == 'paused' else 'not paused'}.")
