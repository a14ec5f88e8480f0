"""
`amqpworker broker`: the private node of a folder, for development.

Decides what is printed and the exit code; the node itself is `amqpworker.testing.Node`.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amqpworker.cli.output import print_error
from amqpworker.cli.shared import AsJson

if TYPE_CHECKING:
    from amqpworker.testing.node import Node, NodeStatus

__all__ = ["broker_app"]

DEFAULT_FOLDER = Path(".amqpworker/broker")

broker_app = typer.Typer(
    no_args_is_help=True,
    help="A private RabbitMQ node from the installed package, on loopback, for development and tests.",
)

Folder = Annotated[Path, typer.Option("--folder", help="Where the node keeps its data, log and ports.")]


@broker_app.command(
    epilog="Examples:\n\n  amqpworker broker start\n\n  amqpworker broker start --folder /tmp/my-node --json"
)
def start(
    folder: Folder = DEFAULT_FOLDER,
    as_json: AsJson = False,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="What the start may take.", min=1)] = 60.0,
) -> None:
    """
    Start the node, unless it runs already, and print its addresses.

    It runs on until `broker stop`. Exit code: 0 it runs, 2 it cannot be started.
    """
    node = node_of(folder).start(timeout)
    _show(node.status(), as_json=as_json)


@broker_app.command(epilog="Example:\n\n  amqpworker broker stop --folder /tmp/my-node")
def stop(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """
    Stop the node and keep its data for the next start.

    Exit code: 0 it is stopped, whether it ran or not; 2 it cannot be stopped.
    """
    node = node_of(folder)
    if node.folder.exists():  # else there is nothing to stop, and no folder to make for it
        node.stop()
    _show(node.status(), as_json=as_json)


@broker_app.command(epilog="Example:\n\n  amqpworker broker status --json")
def status(folder: Folder = DEFAULT_FOLDER, as_json: AsJson = False) -> None:
    """
    Tell whether the node runs, and where.

    Exit code: 0 it runs, 1 it does not, 2 its folder cannot be read.
    """
    found = node_of(folder).status()
    _show(found, as_json=as_json)
    if not found.running:
        raise typer.Exit(1)


@broker_app.command(epilog="Example:\n\n  export AMQPWORKER_URL=$(amqpworker broker url)")
def url(folder: Folder = DEFAULT_FOLDER) -> None:
    """
    Print the URL of the node, for AMQPWORKER_URL.

    Exit code: 0 it runs, 1 it does not, 2 its folder cannot be read.
    """
    found = node_of(folder).status()
    if not found.running:
        where = "" if folder == DEFAULT_FOLDER else f" --folder {shlex.quote(str(folder))}"
        print_error(f"The node in {found.folder} does not run: amqpworker broker start{where}.")
        raise typer.Exit(1)
    sys.stdout.write(f"{found.url}\n")


def node_of(folder: Path) -> Node:
    """Return the node of a folder; what it takes is loaded by these commands, not by each."""
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
