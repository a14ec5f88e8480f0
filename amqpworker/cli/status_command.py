"""
`amqpworker status` and `amqpworker workers`: the status of the pools on this machine.

Decides what is shown, and the exit code: 1 if a pool is not ready. The supervisors respond (`supervisor.health`).
"""

from __future__ import annotations

import json
import socket
import time
from contextlib import closing
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
    running = _running_supervisors(None)
    if as_json:
        write_json(running)
        return
    if not running:
        write("No pools are running on this machine.")
        return
    made = table("pid", "service", "pools", "processes", "status", widths={"pid": 8})
    for state in running:
        names = "\n".join(_name_and_app(pool) for pool in state.get("pools", ()))
        wanted = str(state.get("wanted", ""))
        made.add_row(str(state["pid"]), printable(state["service"]), names, wanted, printable(state["status"]))
    console().print(made)


def _running_supervisors(pid: str | None) -> list[dict[str, Any]]:
    """Return the status of each supervisor on this machine that this user may see, or of those with a process id."""
    # Loaded only if a command needs it; so is HTTP below.
    from amqpworker.supervisor import sockets

    found = (_probe(path) for path in sockets.sockets() if pid is None or path.stem == pid)
    return [state for state in found if state is not None]


def _probe(path: Path) -> dict[str, Any] | None:
    """Return the status of the supervisor with this socket, or that it does not respond; None if it has ended."""
    from amqpworker.supervisor import sockets

    known = {"socket": str(path), "service": sockets.service_of(path)}
    try:
        return {**get_status(str(path)), **known}
    except NotConnected as error:
        # A killed supervisor leaves its socket; one that hangs listens.
        if isinstance(error.__cause__, ConnectionRefusedError | FileNotFoundError | PermissionError):
            return None
        pid = int(path.stem) if path.stem.isdecimal() else None
        return {"pid": pid, "status": "it does not respond" if error.__cause__ is not None else str(error), **known}


def _find_address(where: str | None) -> str:
    """
    Return the address of the supervisor that is meant.

    Raises ConfigError if there is none or more than one, or if `where` is not an address.
    """
    if where is not None and not where.isdecimal():
        return _checked_address(where)
    running = _running_supervisors(where)
    if not running:
        problem = "No pools are running" if where is None else f"No supervisor with process id {where} is running"
        raise ConfigError(
            f"{problem} on this machine, or you may not see it: run this as its user or root, or give its --health address."
        )
    if len(running) > 1:
        choices = ", ".join(sorted(map(_pid_and_apps, running)))
        raise ConfigError(
            f"{len(running)} supervisors are running on this machine; give the process id of one: {choices}."
        )
    return str(running[0]["socket"])


def _pid_and_apps(state: dict[str, Any]) -> str:
    """Return the process id of a supervisor, with its apps if it has reported them."""
    pid = state["socket"].rpartition("/")[2].removesuffix(".sock")
    apps = sorted({pool["app"] for pool in state.get("pools", ()) if pool.get("app")})
    return f"{pid} ({printable(', '.join(apps))})" if apps else pid


def _checked_address(address: str) -> str:
    from amqpworker.supervisor import health

    try:
        health.check_address(address)
    except ConfigError:
        raise ConfigError(f"{address!r} is not a process id, HOST:PORT or the path of a socket.") from None
    return address


def get_status(address: str) -> dict[str, Any]:
    """Request the status of a supervisor; raises NotConnected if it does not respond."""
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
    if isinstance(state, dict) and "wanted" in state:
        return state
    reason = state.get("status", "it is not a supervisor") if isinstance(state, dict) else "it is not a supervisor"
    raise NotConnected(f"The supervisor at {address} does not report its status: {reason}.")


def _connection_to(address: str) -> HTTPConnection:
    from http.client import HTTPConnection

    from amqpworker.supervisor import health

    if "/" not in address:
        return HTTPConnection(*health.split_address(address), timeout=TIMEOUT)
    connection = HTTPConnection("localhost", timeout=TIMEOUT)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(TIMEOUT)
    try:
        _connect(connection.sock, address)
    except OSError:
        connection.close()
        raise
    return connection


def _connect(client: socket.socket, address: str) -> None:
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
        lines = [f"{_name_and_app(pool)}: {pool['consuming']}/{pool['wanted']} consuming" for pool in pools]
        parts += [*map(Text, [*lines, *_scheduler_lines(state)]), Text("")]
    parts.append(_processes_table(state))
    parts += _waiting_lines(state)
    parts += _paused_lines(state)
    if any(process["running"] for process in state["processes"]):
        parts += [Text(""), running_table(state)]
    parts += _unknown_lines(state)
    if unconfirmed := sum(process["unconfirmed"] for process in state["processes"]):
        effect = "check that their queues have a majority"
        parts += [Text(""), Text(f"{unconfirmed} retries and dead letters are not confirmed yet: {effect}.")]
    if state["errors"]:
        parts += [Text(printable(line)) for line in ("", *state["errors"])]
    return Group(*parts)


def _name_and_app(pool: dict[str, Any]) -> str:
    """Return a pool's name with its app, since most pools have the same name; an older supervisor does not report the app."""
    app = pool.get("app")
    return f"{printable(pool['name'])} ({printable(app)})" if app else printable(pool["name"])


def _scheduler_lines(state: dict[str, Any]) -> list[str]:
    """Return a line for each scheduler process: during a reload there are two."""
    # An older version does not report them.
    found = [process for process in state["processes"] if process.get("scheduler")]
    return [f"scheduler {printable(process['scheduler']['name'])}: {_leading(process)}" for process in found]


def _leading(process: dict[str, Any]) -> str:
    """Return which scheduler leads, as the process of one knows it."""
    scheduler = process["scheduler"]
    if not process["consuming"]:
        return _stage(process)
    if scheduler["leads"]:
        return f"leads since {printable(scheduler['since'])}"
    if scheduler["leader"]:
        return f"standby, {printable(scheduler['leader'])} leads since {printable(scheduler['since'])}"
    return "standby, does not know yet which one leads"


def _stage(process: dict[str, Any]) -> str:
    waits = process["stage"] == "consuming" and not process["consuming"]
    return "stalled" if process["stalled"] else "waiting" if waits else str(process["stage"])


def _waiting_lines(state: dict[str, Any]) -> list[Any]:
    """Return a line for each broker or queue that processes wait for, unless the status shows it already."""
    from rich.text import Text

    texts = {printable(process.get("waits", "")).rstrip(".") for process in state["processes"]}
    lines = [f"waiting for {text}" for text in sorted(texts) if text and text not in state["status"]]
    return [Text(""), *map(Text, lines)] if lines else []


def _paused_lines(state: dict[str, Any]) -> list[Any]:
    """Return a line with all that is paused; an older supervisor does not report it."""
    from rich.text import Text

    paused = state.get("paused", ())
    return [Text(""), Text(f"paused: {printable(', '.join(paused))}")] if paused else []


def _unknown_lines(state: dict[str, Any]) -> list[Any]:
    """Return a line for each task that the workers do not know and of which messages wait."""
    from rich.text import Text

    unknown = state.get("unknown", {})  # an older version does not report them
    lines = [
        f"{number} {'message' if number == 1 else 'messages'} of task {printable(name)} "
        f"{'waits' if number == 1 else 'wait'} for a worker that knows it"
        for name, number in unknown.items()
    ]
    return [Text(""), *map(Text, lines)] if lines else []


def _processes_table(state: dict[str, Any]) -> Table:
    # A column that is seldom needed: without it a row fits 80 characters.
    isolates = any(process["isolated"] or process["waiting_suspects"] for process in state["processes"])
    isolated = ("isolated",) if isolates else ()
    made = table("pool", "nr", "pid", "stage", "tasks", *isolated, "done", "retried", "dead", "MiB", "age")
    for process in state["processes"]:
        suspects = process["waiting_suspects"]
        cells = {"isolated": f"{process['isolated']} +{suspects}" if suspects else str(process["isolated"])}
        made.add_row(
            printable(process["pool"]),
            str(process["number"]),
            str(process["pid"]),
            _stage(process),
            str(len(process["running"])),
            *(cells[column] for column in isolated),
            *(str(process["counts"][name]) for name in ("done", "retried", "dead")),
            str(process["memory"] // MIB),
            age(state["at"] - process["started"]),
        )
    return made


def running_table(state: dict[str, Any]) -> Table:
    """Return the running tasks, a row each, the longest-running first."""
    made = table("pid", "task", "id", "attempt", "for", "limit", widths={"id": ID_WIDTH})
    running = [(process["pid"], task) for process in state["processes"] for task in process["running"]]
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
