"""
`amqpworker queues pause`, `resume` and `paused`, `amqpworker tasks pause` and `resume`.

Decides what is shown; `client.queue_control` decides which names are valid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from amqpworker.cli.output import console, table, write, write_json
from amqpworker.cli.shared import APP_VARIABLE, AsJson, closing_app, examples, load, quiet
from amqpworker.log.terminal import printable

if TYPE_CHECKING:
    from amqpworker.model.paused import Kind

AppWithName = Annotated[
    str, typer.Option("--app", metavar="MODULE:APP", envvar=APP_VARIABLE, help="The app that has the queue or task.")
]
QueueName = Annotated[str, typer.Argument(metavar="NAME", help="The queue's name.")]
TaskName = Annotated[str, typer.Argument(metavar="NAME", help="The task's name.")]


def add_pause_commands(queues: typer.Typer, tasks: typer.Typer) -> None:
    """Add the commands to those about queues and about tasks."""
    queues.command("pause", epilog=examples("amqpworker queues pause emails --app shop.tasks:app"))(pause_queue)
    queues.command("resume", epilog=examples("amqpworker queues resume emails --app shop.tasks:app"))(resume_queue)
    queues.command("paused", epilog=examples("amqpworker queues paused --app shop.tasks:app --json"))(list_paused)
    name = "shop.tasks.send_welcome"
    tasks.command("pause", epilog=examples(f"amqpworker tasks pause {name} --app shop.tasks:app"))(pause_task)
    tasks.command("resume", epilog=examples(f"amqpworker tasks resume {name} --app shop.tasks:app"))(resume_task)


def pause_queue(name: QueueName, app: AppWithName, as_json: AsJson = False) -> None:
    """
    Pause a queue in all workers, on all hosts, until it is resumed.

    Nothing of it starts any more, and what runs continues. Messages stay in the queue; calls time out.

    Exit codes: 0 it is paused, 1 not confirmed in time, 2 it could not be done.
    """
    quiet()
    found = load(app)
    with closing_app(found):
        changed = found.queues.pause(name)
    _show("queue", name, "paused", changed, as_json)


def resume_queue(name: QueueName, app: AppWithName, as_json: AsJson = False) -> None:
    """
    Resume a queue that is paused.

    Exit codes: 0 it is not paused, 1 not confirmed in time, 2 it could not be done.
    """
    quiet()
    found = load(app)
    with closing_app(found):
        changed = found.queues.resume(name)
    _show("queue", name, "resumed", changed, as_json)


def pause_task(name: TaskName, app: AppWithName, as_json: AsJson = False) -> None:
    """
    Pause a task in all workers, on all hosts, until it is resumed.

    None starts any more, and those that run continue. Other tasks of its queue run. Its messages wait outside of the queue, in steps of 64 s; calls time out. `amqpworker queues paused` lists paused tasks, too.

    Exit codes: 0 it is paused, 1 not confirmed in time, 2 it could not be done.
    """
    quiet()
    found = load(app)
    with closing_app(found):
        changed = found.queues.pause_task(name)
    _show("task", name, "paused", changed, as_json)


def resume_task(name: TaskName, app: AppWithName, as_json: AsJson = False) -> None:
    """
    Resume a task that is paused. Its messages start within 64 s.

    Exit codes: 0 it is not paused, 1 not confirmed in time, 2 it could not be done.
    """
    quiet()
    found = load(app)
    with closing_app(found):
        changed = found.queues.resume_task(name)
    _show("task", name, "resumed", changed, as_json)


def list_paused(app: AppWithName, as_json: AsJson = False) -> None:
    """
    List the queues and tasks that are paused, and since when, in UTC.

    Exit codes: 0 listed, also if there are none; 2 it could not be read.
    """
    quiet()
    found = load(app)
    with closing_app(found):
        paused = found.queues.paused()
    kinds: tuple[Kind, Kind] = ("queue", "task")
    rows = [(kind, name, since) for kind in kinds for name, since in sorted(paused.of(kind).items())]
    if as_json:
        write_json([{"kind": kind, "name": name, "since": since} for kind, name, since in rows])
    elif not rows:
        write("Nothing is paused.")
    else:
        shown = table("paused", "name", "since")
        for row in rows:
            shown.add_row(*map(printable, row))
        console().print(shown)


def _show(kind: Kind, name: str, state: str, changed: bool, as_json: bool) -> None:
    if as_json:
        write_json([{kind: name, "paused": state == "paused", "changed": changed}])
    elif changed:
        write(f"The {kind} {printable(name)!r} is {state}.")
    else:
        write(f"The {kind} {printable(name)!r} is {'paused already' if state == 'paused' else 'not paused'}.")
