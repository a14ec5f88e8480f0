"""
`amqpworker queues`: what an operator does to a whole queue.

Decides which queues belong together: a bounded queue and the one beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from amqpworker.cli.output import write, write_json
from amqpworker.cli.questions import agreed
from amqpworker.cli.shared import AsJson, admin_of, app_option, examples, load, quiet
from amqpworker.errors import ConfigError
from amqpworker.log.terminal import printable

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.broker.admin import Admin

queues_app = typer.Typer(no_args_is_help=True, help="Act on whole queues of an app.")

AppWithQueue = Annotated[str, app_option("The app that has the queue.")]
QueueName = Annotated[str, typer.Argument(metavar="NAME", help="The queue's name.")]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")]


@queues_app.callback()
def queues() -> None:
    """Act on whole queues of an app."""


@queues_app.command(
    short_help="Drop all messages that wait in a queue, for good.",
    epilog=examples(
        "amqpworker queues purge reports --app shop.tasks:app",
        "amqpworker queues purge reports --app shop.tasks:app --yes --json",
    ),
)
def purge(name: QueueName, app: AppWithQueue, yes: Yes = False, as_json: AsJson = False) -> None:
    """
    Drop all messages that wait in a queue, for good, and of a bounded queue those that are due as well.

    Delayed messages and dead letters stay, and so do messages that workers have already fetched.

    Exit codes: 0 dropped, 1 you did not agree, 2 it could not be done.
    """
    quiet()
    found = load(app)
    found.plan.check_known(name)
    with admin_of(found) as admin:
        counts = _waiting(admin, found, name)
        if any(counts.values()) and not agreed(f"Drop {_text(counts)} for good?", yes):
            raise typer.Exit(1)
        # Without --yes, what has arrived since they were counted as empty was not asked about.
        is_agreed = yes or any(counts.values())
        purged = {queue: admin.purge(queue) for queue in counts} if is_agreed else counts
    if as_json:
        write_json([{"queue": queue, "purged": count} for queue, count in purged.items()])
    else:
        write(f"Dropped {_text(purged)}.")


def _waiting(admin: Admin, app: App, name: str) -> dict[str, int]:
    """Return how many messages wait in a queue, and in the one beside it; raises ConfigError if it does not exist."""
    found = {}
    for queue in filter(None, (name, app.plan.due_queue(name))):
        if (depth := admin.depth(queue)) is not None:
            found[queue] = depth.messages
    if name not in found:
        raise ConfigError(f"The queue {name!r} does not exist on this broker yet: there is nothing to purge.")
    return found


def _text(counts: dict[str, int]) -> str:
    return " and ".join(
        f"{count} message{'' if count == 1 else 's'} of {printable(queue)!r}" for queue, count in counts.items()
    )
