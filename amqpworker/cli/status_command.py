"""
`amqpworker status` and `amqpworker workers`: the status of the pools on this machine.

Decides what is shown, and the exit code: 1 if a pool is not ready. The supervisors respond (`supervisor.health`).
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amqpworker.cli.output import ID_WIDTH, console, folded, table, write, write_json
from amqpworker.cli.shared import AsJson, examples
from amqpworker.errors import ConfigError, NotConnected
from amqpworker.log.terminal import printable

if TYPE_CHECKING:
    from http.client import HTTPConnection
    from pathlib import Path

    from rich.console import Group
    from rich.table import Table

TIMEOUT = 5.0
WATCH_INTERVAL = 1.0
CONNECT_RETRY_DELAY = 0.02
MIB = 1024 * 1024

status_app = typer.Typer()


@status_app.command(
    epilog=examples("amqpworker status", "amqpworker status 4711 --watch", "amqpworker status 127.0.0.1:8080 --json")
)
def status(
    where: Annotated[
        str | None,
        typer.Argument(
            metavar="WHERE",
            help="The supervisor: its process id, or its --health address.",
            show_default="the only one on this machine",
        ),
    ] = None,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Refresh once per second, until Ctrl-C.")] = False,
) -> None:
    """
    Show the processes and running tasks of a supervisor's pools.

    Exit codes: 0 every process consumes, 1 not all do, 2 there is no such supervisor, or it does not respond.
    """
    if as_json and watch:
        raise ConfigError("Use --json or --watch, not both.")
    address = _find_address(where)
    if as_json:
        state = get_status(address)
        write_json(state)
    elif watch:
        state = _watch_status(address)
    else:
        state = get_status(address)
        console().print(status_tables(state))
    raise typer.Exit(0 if state["consuming"] >= state["wanted"] else 1)


@status_app.command(epilog=examples("amqpworker workers", "amqpworker workers --json"))
def workers(as_json: AsJson = False) -> None:
    """
    List the supervisors on this machine with their pools. Root sees those of all users and services.

    Exit code: 0 listed, also if there are none.
    """
    pools = [state for path in _visible_sockets() if (state := _summary(path)) is not None]
    if as_json:
        write_json(pools)
        return
    if not pools:
        write("No pools are running on this machine.")
        return
    made = table("pid", "service", "pools", "processes", "status", widths={"pid": 8})
    for one in pools:
        names = "\n".join(_name_and_app(pool) for pool in one.get("pools", ()))
        wanted = str(one.get("wanted", ""))
        made.add_row(str(one["pid"]), printable(one["service"]), names, wanted, printable(one["status"]))
    console().print(made)


def _summary(path: Path) -> dict[str, Any] | None:
    """Return the status of the supervisor with this socket, or that it does not respond; None if it has ended."""
    from amqpworker.supervisor import sockets

    known = {"socket": str(path), "service": sockets.service_of(path)}
    try:
        return {**get_status(str(path)), **known}
    except NotConnected as error:
        pid = int(path.stem) if path.stem.isdecimal() else None
        return None if _has_ended(error) else {"pid": pid, "status": _unresponsive_status(error), **known}


def _find_address(where: str | None) -> str:
    """
    Return the address of the supervisor that is meant.

    Raises:
        ConfigError: there is none or more than one, or `where` is not an address.
    """
    if where is not None and not where.isdecimal():
        return _checked_address(where)
    known = [str(path) for path in _visible_sockets() if where is None or path.stem == where]
    running = known if where is not None else [address for address in known if _is_running(address)]
    if len(running) == 1:
        return running[0]
    if where is not None or not running:
        problem = "No pools are running" if where is None else f"No supervisor with process id {where} is running"
        raise ConfigError(
            f"{problem} on this machine, or you may not see it: run this as its user or root, or give its --health address."
        )
    choices = ", ".join(sorted(filter(None, map(_pid_and_apps, running))))
    raise ConfigError(f"{len(running)} supervisors are running on this machine; give the process id of one: {choices}.")


def _pid_and_apps(address: str) -> str:
    """Return the process id of a supervisor, with its apps if it responds."""
    pid = address.rpartition("/")[2].removesuffix(".sock")
    with suppress(NotConnected):
        apps = sorted({pool["app"] for pool in get_status(address).get("pools", ()) if pool.get("app")})
        return f"{pid} ({printable(', '.join(apps))})" if apps else pid
    return pid


def _checked_address(address: str) -> str:
    """
    Return an address as it is.

    Raises:
        ConfigError: it is neither HOST:PORT nor a path.
    """
    from amqpworker.supervisor import health

    try:
        health.check_address(address)
    except ConfigError:
        raise ConfigError(f"{address!r} is not a process id, HOST:PORT or the path of a socket.") from None
    return address


def _visible_sockets() -> list[Path]:
    """Return the sockets of supervisors on this machine that this user may see."""
    # Loaded only if a command needs it; so is HTTP below.
    from amqpworker.supervisor import sockets

    return sockets.sockets()


def _is_running(address: str) -> bool:
    """Return whether there is a supervisor, even one that hangs."""
    try:
        get_status(address)
    except NotConnected as error:
        return not _has_ended(error)
    return True


def _has_ended(error: NotConnected) -> bool:
    """Return whether nothing listens there: a killed supervisor leaves its socket, a hanging one listens."""
    return isinstance(error.__cause__, ConnectionRefusedError | FileNotFoundError | PermissionError)


def _unresponsive_status(error: NotConnected) -> str:
    """Return the status to show for a supervisor that listens and does not report its own."""
    return "it does not respond" if error.__cause__ is not None else str(error)


def get_status(address: str) -> dict[str, Any]:
    """
    Request the status of a supervisor.

    Raises:
        NotConnected: it does not respond.
    """
    from http.client import HTTPException

    try:
        with closing(_connection_to(address)) as connection:
            connection.request("GET", "/status")
            state = json.loads(connection.getresponse().read())
    except TimeoutError as error:
        reason = f"did not respond within {TIMEOUT:g} s: it hangs, or the machine is overloaded"
        raise NotConnected(f"The supervisor at {address} {reason}.") from error
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise NotConnected(f"No supervisor responds at {address}: {reason}.") from error
    if not isinstance(state, dict) or "wanted" not in state:
        reason = state.get("status", "it is not a supervisor") if isinstance(state, dict) else "it is not a supervisor"
        raise NotConnected(f"The supervisor at {address} does not report its status: {reason}.")
    return state


def _connection_to(address: str) -> HTTPConnection:
    """Return a connection to a port, or to a unix socket."""
    from http.client import HTTPConnection

    from amqpworker.supervisor import health

    if "/" not in address:
        return HTTPConnection(*health.split_address(address), timeout=TIMEOUT)
    connection = HTTPConnection("localhost", timeout=TIMEOUT)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(TIMEOUT)
    try:
        connect(connection.sock, address)
    except OSError:
        connection.close()
        raise
    return connection


def connect(client: socket.socket, address: str) -> None:
    """Connect to a unix socket; retry while its backlog is full, which the system reports at once."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        try:
            client.connect(address)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise TimeoutError from None
            time.sleep(CONNECT_RETRY_DELAY)
        else:
            return


def _watch_status(address: str) -> dict[str, Any]:
    """Show the status until Ctrl-C; return the last one shown."""
    from rich.live import Live

    state = get_status(address)
    with Live(status_tables(state), console=console(), refresh_per_second=4) as live:
        try:
            while True:
                time.sleep(WATCH_INTERVAL)
                state = get_status(address)
                live.update(status_tables(state))
        except KeyboardInterrupt:
            return state


def status_tables(state: dict[str, Any]) -> Group:
    """Return the status of a supervisor as tables."""
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [Text(f"supervisor {state['pid']}: {state['status']}"), Text("")]
    if pools := state.get("pools", ()):  # an older version does not report them
        lines = [f"{_name_and_app(one)}: {one['consuming']}/{one['wanted']} consuming" for one in pools]
        parts += [*map(Text, lines), Text("")]
    parts.append(_processes_table(state))
    parts += _waiting_lines(state)
    if any(one["running"] for one in state["processes"]):
        parts += [Text(""), running_table(state)]
    if unconfirmed := sum(one["unconfirmed"] for one in state["processes"]):
        parts += [
            Text(""),
            Text(
                f"{unconfirmed} retries and dead letters are not confirmed yet: check that their queues have a majority."
            ),
        ]
    if state["errors"]:
        parts += [Text(printable(line)) for line in ("", *state["errors"])]
    return Group(*parts)


def _name_and_app(pool: dict[str, Any]) -> str:
    """Return a pool's name with its app, since most pools have the same name; an older supervisor does not report the app."""
    app = pool.get("app")
    return f"{printable(pool['name'])} ({printable(app)})" if app else printable(pool["name"])


def _waiting_lines(state: dict[str, Any]) -> list[Any]:
    """Return a line for each broker or queue that processes wait for, unless the status shows it already."""
    from rich.text import Text

    texts = {printable(one.get("waits", "")).rstrip(".") for one in state["processes"]}
    lines = [f"waiting for {text}" for text in sorted(texts) if text and text not in state["status"]]
    return [Text(""), *map(Text, lines)] if lines else []


def _processes_table(state: dict[str, Any]) -> Table:
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
    """Return the running tasks, a row each, the longest-running first."""
    made = table("pid", "task", "id", "attempt", "for", "limit", widths={"id": ID_WIDTH})
    running = [(one["pid"], task) for one in state["processes"] for task in one["running"]]
    for pid, task in sorted(running, key=lambda pair: pair[1]["started"]):
        since = age(state["at"] - task["started"])
        made.add_row(str(pid), printable(task["task"]), folded(task["key"]), str(task["attempt"]), since, limit(task))
    return made


def limit(task: dict[str, Any]) -> str:
    """Return the time limit of a running task, and by how much it has exceeded it."""
    if not task["limit"]:
        return ""
    duration = age(task["limit"] - task["started"])
    over = task.get("over", 0)  # a supervisor of an older version does not report it
    return f"{duration}, over by {age(over)}" if over else duration


def age(seconds: float) -> str:
    """Return a duration for people: 0.3 s, 12 min, 3 h, 2 d."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
