"""
`amqpworker tasks`: list the tasks of an app, and compare them with those of another release.

Decides what is shown; `cli.task_changes` decides what is safe. The exit code is 1 if a deploy is not.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amqpworker.cli.output import clipped, console, folded, table, write, write_json
from amqpworker.cli.shared import APP_VARIABLE, AsJson, app_option, examples, load, quiet
from amqpworker.errors import ConfigError
from amqpworker.log.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amqpworker.cli.task_changes import Change
    from amqpworker.cli.task_descriptions import TaskDescription

tasks_app = typer.Typer(invoke_without_command=True)


@tasks_app.callback(
    short_help="List the tasks of an app, or compare them by --diff.",
    epilog=examples(
        "amqpworker tasks --app shop.tasks:app",
        "amqpworker tasks --app shop.tasks:app --json > deployed.json",
        "amqpworker tasks --app shop.tasks:app --diff deployed.json",
    ),
)
def tasks(
    context: typer.Context,
    app: Annotated[str | None, app_option("The app that has the tasks.")] = None,
    diff: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What --json printed for the release that is deployed: list what changes since."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """
    List the tasks of an app, or check with --diff whether it can be deployed; does not connect to the broker.

    A parameter in brackets may be left out. Options are those for results and for expected errors. A deploy is safe if no message is dead-lettered while old and new senders and workers run at once.

    Exit codes: 0 listed, or the deploy is safe, 1 it is not, 2 the tasks or the file could not be read.
    """
    if context.invoked_subcommand is not None:
        return
    if app is None:
        raise ConfigError(f"Name the app that has the tasks: --app MODULE:APP, or {APP_VARIABLE}.")
    from amqpworker.cli.task_changes import changes_between
    from amqpworker.cli.task_descriptions import descriptions_of, read_descriptions

    quiet()
    deployed = None if diff is None else read_descriptions(diff)
    found = load(app)
    described = descriptions_of(found.tasks)
    if deployed is None:
        _list(described, as_json)
        return
    changes = changes_between(deployed, described, found.plan.queues)
    _show_changes(changes, as_json)
    if not all(change.safe for change in changes):
        raise typer.Exit(1)


def _list(described: Sequence[TaskDescription], as_json: bool) -> None:
    if as_json:
        write_json([one.as_json() for one in described])
        return
    if not described:
        write("The app has no tasks.")
        return
    has_options = any(one.options for one in described)
    shown = table("task", "queue", "version", "parameters", *(["options"] if has_options else []))
    for one in described:
        parameters = (each.name if each.required else f"[{each.name}]" for each in one.parameters)
        names = "\n".join([folded(one.name), *(folded(f"also {alias}") for alias in one.aliases)])
        row = [names, clipped(one.queue, 255), str(one.version), clipped(" ".join(parameters), 1000)]
        shown.add_row(*row, *([clipped(" ".join(one.options), 1000)] if has_options else []))
    console().print(shown)


def _show_changes(changes: Sequence[Change], as_json: bool) -> None:
    if as_json:
        write_json([change.as_json() for change in changes])
        return
    for change in changes:
        write(printable(f"{'safe' if change.safe else 'UNSAFE'}: task {change.task!r} {change.text}."))
    unsafe = sum(not change.safe for change in changes)
    if unsafe:
        write(f"The deploy is not safe: {unsafe} of {len(changes)} changes can leave dead letters.")
    else:
        write("The deploy is safe." if changes else "The deploy is safe: no task has changed.")
