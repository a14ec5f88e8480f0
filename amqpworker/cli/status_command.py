"""
`amqpworker status` and `amqpworker workers`: how the pools of this machine stand.

Decides what is shown, and the exit code: 1 where a pool is not ready. The supervisors themselves answer (`supervisor.health`).
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amqpworker.cli.output import ID_WIDTH, console, folded, printable, table, write, write_json
from amqpworker.cli.shared import AsJson
from amqpworker.errors import ConfigError, NotConnected

if TYPE_CHECKING:
    from http.client import HTTPConnection
    from pathlib import Path

    from rich.console import Group
    from rich.table import Table

__all__ = ["status_app"]

PATIENCE = 5.0
PAUSE = 1.0
LINE_PAUSE = 0.02
MIB = 1024 * 1024

status_app = typer.Typer()


@status_app.command(
    epilog="Examples:\n\n  amqpworker status\n\n  amqpworker status 4711 --watch\n\n  amqpworker status 127.0.0.1:8080 --json"
)
def status(
    where: Annotated[
        str | None,
        typer.Argument(
            metavar="WHERE",
            help="A pool: its supervisor's process id, or what --health was; default: the only one here.",
        ),
    ] = None,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again each second, until Ctrl-C.")] = False,
) -> None:
    """
    Show how a pool stands: its processes, and the tasks that run.

    Exit code: 0 every process consumes, 1 not all do, 2 there is no such pool, or it does not answer.
    """
    if as_json and watch:
        raise ConfigError("Give --json or --watch, not both.")
    address = found(where)
    if as_json:
        state = asked(address)
        write_json(state)
    elif watch:
        state = watched(address)
    else:
        state = asked(address)
        console().print(shown(state))
    raise typer.Exit(0 if state["consuming"] >= state["wanted"] else 1)


@status_app.command(epilog="Examples:\n\n  amqpworker workers\n\n  amqpworker workers --json")
def workers(as_json: AsJson = False) -> None:
    """List what runs on this machine, a supervisor each with its pools, as far as it may be seen: as root services, too."""
    pools = [state for path in visible_sockets() if (state := standing(path)) is not None]
    if as_json:
        write_json(pools)
        return
    if not pools:
        write("No pool runs here.")
        return
    made = table("pid", "service", "pools", "processes", "status", widths={"pid": 8})
    for one in pools:
        names = "\n".join(named(pool) for pool in one.get("pools", ()))
        wanted = str(one.get("wanted", ""))
        made.add_row(str(one["pid"]), printable(one["service"]), names, wanted, printable(one["status"]))
    console().print(made)


def standing(path: Path) -> dict[str, Any] | None:
    """Return what the supervisor with this socket says of itself, or that it does not answer; None where it is gone."""
    from amqpworker.supervisor import sockets

    known = {"socket": str(path), "service": sockets.service_of(path)}
    try:
        return {**asked(str(path)), **known}
    except NotConnected as error:
        pid = int(path.stem) if path.stem.isdecimal() else None
        return None if is_gone(error) else {"pid": pid, "status": silent(error), **known}


def found(where: str | None) -> str:
    """
    Return the address of the pool that is meant.

    Raises:
        ConfigError: there is none, or more than one, or it cannot be one.
    """
    if where is not None and not where.isdecimal():
        return checked(where)
    known = [str(path) for path in visible_sockets() if where is None or path.stem == where]
    living = known if where is not None else [address for address in known if lives(address)]
    if len(living) == 1:
        return living[0]
    if where is not None or not living:
        problem = "No pool runs here" if where is None else f"No pool with the process id {where} runs here"
        raise ConfigError(f"{problem}, or none that may be seen: run this as its user, or give what its --health is.")
    known_by = ", ".join(sorted(filter(None, map(pid_and_apps, living))))
    raise ConfigError(f"{len(living)} pools run here: give the process id of one: {known_by}.")


def pid_and_apps(address: str) -> str:
    """Return the process id of a supervisor, with its apps if it answers."""
    pid = address.rpartition("/")[2].removesuffix(".sock")
    with suppress(NotConnected):
        apps = sorted({pool["app"] for pool in asked(address).get("pools", ()) if pool.get("app")})
        return f"{pid} ({printable(', '.join(apps))})" if apps else pid
    return pid


def checked(address: str) -> str:
    """
    Return an address as it is.

    Raises:
        ConfigError: it is neither HOST:PORT nor a path.
    """
    from amqpworker.supervisor import health

    try:
        health.check_address(address)
    except ConfigError:
        raise ConfigError(f"{address!r} is no pool: give a process id, HOST:PORT or the path of a socket.") from None
    return address


def visible_sockets() -> list[Path]:
    """Return the sockets of the pools on this machine that may be seen."""
    # Loaded by the commands that ask, not by each; so is HTTP below.
    from amqpworker.supervisor import sockets

    return sockets.sockets()


def lives(address: str) -> bool:
    """Tell whether there is a supervisor, be it one that hangs."""
    try:
        asked(address)
    except NotConnected as error:
        return not is_gone(error)
    return True


def is_gone(error: NotConnected) -> bool:
    """Tell whether nobody listens there: a supervisor that was killed leaves its socket. One that hangs listens."""
    return isinstance(error.__cause__, ConnectionRefusedError | FileNotFoundError | PermissionError)


def silent(error: NotConnected) -> str:
    """Return the status of a supervisor that listens and does not tell how it stands."""
    return "it does not answer" if error.__cause__ is not None else str(error)


def asked(address: str) -> dict[str, Any]:
    """
    Return what a supervisor says of itself.

    Raises:
        NotConnected: it does not answer.
    """
    from http.client import HTTPException

    try:
        with closing(connection_to(address)) as connection:
            connection.request("GET", "/status")
            state = json.loads(connection.getresponse().read())
    except TimeoutError as error:
        reason = f"does not answer within {PATIENCE:g} s: it hangs, or the machine is overloaded"
        raise NotConnected(f"The supervisor at {address} {reason}.") from error
    except (OSError, ValueError, HTTPException) as error:
        why = getattr(error, "strerror", None) or error
        raise NotConnected(f"No supervisor answers at {address}: {why}.") from error
    if not isinstance(state, dict) or "wanted" not in state:
        reason = state.get("status", "it is no supervisor") if isinstance(state, dict) else "it is no supervisor"
        raise NotConnected(f"The supervisor at {address} cannot tell how it stands: {reason}.")
    return state


def connection_to(address: str) -> HTTPConnection:
    """Return a connection to a port, or to a unix socket."""
    from http.client import HTTPConnection

    from amqpworker.supervisor import health

    if "/" not in address:
        return HTTPConnection(*health.split_address(address), timeout=PATIENCE)
    connection = HTTPConnection("localhost", timeout=PATIENCE)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(PATIENCE)
    try:
        connect(connection.sock, address)
    except OSError:
        connection.close()
        raise
    return connection


def connect(client: socket.socket, address: str) -> None:
    """Connect to a unix socket; if its queue of clients is full, the system refuses at once, and it is retried for a while."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            client.connect(address)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise TimeoutError from None
            time.sleep(LINE_PAUSE)
        else:
            return


def watched(address: str) -> dict[str, Any]:
    """Show it until Ctrl-C; return what was shown last."""
    from rich.live import Live

    state = asked(address)
    with Live(shown(state), console=console(), refresh_per_second=4) as live:
        try:
            while True:
                time.sleep(PAUSE)
                state = asked(address)
                live.update(shown(state))
        except KeyboardInterrupt:
            return state


def shown(state: dict[str, Any]) -> Group:
    """Return a pool as tables."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [Text(f"pool {state['pid']}: {state['status']}"), Text("")]
    if pools := state.get("pools", ()):  # an older version does not report them
        lines = [f"{named(one)}: {one['consuming']}/{one['wanted']} consuming" for one in pools]
        parts += [*map(Text, lines), Text("")]
    parts.append(processes_table(state))
    parts += waits_lines(state)
    if any(one["running"] for one in state["processes"]):
        parts += [Text(""), running_table(state)]
    if unconfirmed := sum(one["unconfirmed"] for one in state["processes"]):
        parts += [
            Text(""),
            Text(f"{unconfirmed} retries and dead letters are not confirmed yet: do their queues have a majority?"),
        ]
    if state["errors"]:
        parts += [Text(printable(line)) for line in ("", *state["errors"])]
    return Group(*parts)


def named(pool: dict[str, Any]) -> str:
    """Return a pool's name with its app, since most pools have the same name; an older supervisor does not report it."""
    app = pool.get("app")
    return f"{printable(pool['name'])} ({printable(app)})" if app else printable(pool["name"])


def waits_lines(state: dict[str, Any]) -> list[Any]:
    """Return which broker or queue processes wait for, and why, a line for each that the status does not show already."""
    from rich.text import Text

    texts = {printable(one.get("waits", "")).rstrip(".") for one in state["processes"]}
    lines = [f"waiting for {text}" for text in sorted(texts) if text and text not in state["status"]]
    return [Text(""), *map(Text, lines)] if lines else []


def processes_table(state: dict[str, Any]) -> Table:
    """Return the worker processes, a row each."""
    made = table("pool", "nr", "pid", "stage", "tasks", "isolated", "done", "retried", "dead", "MiB", "age")
    for one in state["processes"]:
        stage = "waiting" if one["stage"] == "consuming" and not one["consuming"] else one["stage"]
        made.add_row(
            printable(one["pool"]),
            str(one["number"]),
            str(one["pid"]),
            "stalled" if one["stalled"] else stage,
            str(len(one["running"])),
            isolated(one),
            *(str(one["counts"][name]) for name in ("done", "retried", "dead")),
            str(one["memory"] // MIB),
            age(state["at"] - one["started"]),
        )
    return made


def isolated(process: dict[str, Any]) -> str:
    """Return how many isolated processes are in use, and how many suspects wait for one."""
    waiting = process["waiting_suspects"]
    return f"{process['isolated']} +{waiting}" if waiting else str(process["isolated"])


def running_table(state: dict[str, Any]) -> Table:
    """Return the tasks that run, a row each, those first that have run for longest."""
    made = table("pid", "task", "id", "attempt", "for", "limit", widths={"id": ID_WIDTH})
    running = [(one["pid"], task) for one in state["processes"] for task in one["running"]]
    for pid, task in sorted(running, key=lambda pair: pair[1]["started"]):
        since = age(state["at"] - task["started"])
        named = (printable(task["task"]), folded(task["key"]), str(task["attempt"]))
        made.add_row(str(pid), *named, since, limit(task))
    return made


def limit(task: dict[str, Any]) -> str:
    """Return the time limit of a task that runs, and how long it has been beyond it."""
    if not task["limit"]:
        return ""
    known = age(task["limit"] - task["started"])
    over = task.get("over", 0)  # a supervisor of an older version does not report it
    return f"{known}, over by {age(over)}" if over else known


def age(seconds: float) -> str:
    """Return a time as people say it: 0.3 s, 12 min, 3 h, 2 d."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
