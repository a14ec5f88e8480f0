"""`amqpworker broker`: the private node of a folder, for development."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amqpworker.cli.shared import AsJson, examples
from amqpworker.log.terminal import print_error

if TYPE_CHECKING:
    from amqpworker.testing.node import Node, NodeStatus

DEFAULT_FOLDER = Path(".amqpworker/broker")

broker_app = typer.Typer(
    no_args_is_help=True,
    help="Run a private RabbitMQ node for development and tests. It is started from the installed package, as any user, and "
    "listens on loopback only.",
)

Folder = Annotated[Path, typer.Option("--folder", help="The node's folder, with its data, log and ports.")]


@broker_app.command(epilog=examples("amqpworker broker start", "amqpworker broker start --folder /tmp/my-node --json"))
def start(
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", help="Give up if the node has not started by then.", min=1)
    ] = 60,
) -> None:
    """
    Start the node, unless it is running, and print its addresses.

    It runs until `broker stop`. Exit codes: 0 it is running, 2 it cannot be started.
    """
    node = _node_of(folder).start(timeout)
    _show(node.status(), as_json=as_json)


@broker_app.command(epilog=examples("amqpworker broker stop --folder /tmp/my-node"))
def stop(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """
    Stop the node and keep its data for the next start.

    Exit codes: 0 it is stopped, also if it was not running; 2 it cannot be stopped.
    """
    node = _node_of(folder)
    if node.folder.exists():  # else there is nothing to stop, and the folder need not be created
        node.stop()
    _show(node.status(), as_json=as_json)


@broker_app.command(epilog=examples("amqpworker broker status --json"))
def status(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """
    Show whether the node is running, and its addresses.

    Exit codes: 0 it is running, 1 it is not, 2 its folder cannot be read.
    """
    found = _node_of(folder).status()
    _show(found, as_json=as_json)
    if not found.running:
        raise typer.Exit(1)


@broker_app.command(epilog=examples("export AMQPWORKER_URL=$(amqpworker broker url)"))
def url(folder: Folder = DEFAULT_FOLDER) -> None:
    """
    Print the URL of the node, for AMQPWORKER_URL.

    Exit codes: 0 it is running, 1 it is not, 2 its folder cannot be read.
    """
    found = _node_of(folder).status()
    if not found.running:
        option = "" if folder == DEFAULT_FOLDER else f" --folder {shlex.quote(str(folder))}"
        print_error(f"The node in {found.folder} is not running: start it with `amqpworker broker start{option}`.")
        raise typer.Exit(1)
    sys.stdout.write(f"{found.url}\n")


def _node_of(folder: Path) -> Node:
    # Loaded only by these commands.
    from amqpworker.testing.node import Node

    return Node(folder)


def _show(status: NodeStatus, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(asdict(status)) + "\n")
        return
    lines = [f"RabbitMQ in {status.folder}: {status.state}"]
    if status.url is not None:
        lines += [f"  URL            {status.url}", f"  management UI  {status.management_url}  (guest / guest)"]
    sys.stdout.write("\n".join(lines) + "\n")
