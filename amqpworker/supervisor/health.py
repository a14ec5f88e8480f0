"""
What a supervisor answers to whoever asks how it stands, by HTTP on loopback or a unix socket.

Decides which state is alive and which is ready. It answers in threads of its own, from what was seen at the last look, so
that it does while processes hang; a supervisor that does not look any more is not alive.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from amqpworker.errors import AmqpWorkerError, ConfigError
from amqpworker.lifecycle import start_thread
from amqpworker.logs import get_logger
from amqpworker.supervisor.overview import Overview, status_line

__all__ = ["HealthServer", "answer", "answering", "check_address", "service_of", "socket_folder", "sockets"]

log = get_logger(__name__)

# A supervisor looks once in a second.
ALIVE_WITHIN = 10.0
MOST_SECONDS = 5.0
# Each has a thread and a descriptor, which the supervisor needs to replace processes.
MOST_CLIENTS = 200
SHARED = Path("/run/amqpworker")

Source = Callable[[], Overview | None]


def answer(path: str, state: Overview | None, now: float) -> tuple[int, dict[str, Any]]:
    """Return the status code and the JSON object for a path; `now` is seconds since the epoch."""
    if path not in {"/livez", "/readyz", "/status"}:
        return 404, {"error": "there are /livez, /readyz and /status"}
    if state is None:
        return 503, {"status": "starting"}
    since = now - state.at
    alive = since < ALIVE_WITHIN
    if not alive:
        return 503, {"status": f"the supervisor has not looked for {since:.0f} s"}
    brief = {"status": status_line(state)}
    if path == "/livez":
        return 200, brief
    if path == "/readyz":
        return 200 if state.consuming >= state.wanted and not state.stopping else 503, brief
    return 200, {**brief, "consuming": state.consuming, "running": state.running, **asdict(state)}


class HealthServer:
    """
    Answers on `where`: `HOST:PORT`, or the path of a unix socket.

    Raises:
        ConfigError: nothing can be opened there.
        AmqpWorkerError: nothing can be opened there now: another process may still answer.
    """

    def __init__(self, where: str, source: Source) -> None:
        self.where = where
        self._path = Path(where) if "/" in where else None
        server = None
        try:
            server = UnixServer(where, source) if self._path else TcpServer(split(where), source)
            start_thread(threading.Thread(target=server.serve_forever, name="amqpworker-health", daemon=True))
        except (OSError, OverflowError, TypeError, ValueError) as error:  # the last two: a null character
            reason = getattr(error, "strerror", None) or str(error)
            passing = getattr(error, "errno", None) in {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EAGAIN}
            if server is not None:
                server.server_close()
            kind = AmqpWorkerError if passing else ConfigError
            raise kind(f"health {where}: nothing can be opened there: {reason}.") from error
        self._server = server

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


@contextmanager
def answering(where: str | None, source: Source) -> Iterator[None]:
    """
    Answer at `where`, and where `amqpworker status` looks; a machine that does not let us do the latter is no trouble.

    Raises:
        AmqpWorkerError: nothing can be opened at `where`; a `ConfigError` if it never can.
    """
    servers = [HealthServer(where, source)] if where is not None else []
    try:
        servers.append(HealthServer(str(socket_folder() / f"{os.getpid()}.sock"), source))
    except (AmqpWorkerError, OSError) as error:
        log.info("status_not_served", reason=str(error), effect="`amqpworker status` does not find this pool")
    try:
        yield
    finally:
        for server in servers:
            server.close()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    timeout = MOST_SECONDS
    server: TcpServer

    def do_GET(self) -> None:
        """Answer with a JSON object."""
        code, content = answer(self.path.partition("?")[0], self.server.source(), time.time())
        body = json.dumps(content).encode() + b"\n"
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing: health checks come every few seconds."""

    def address_string(self) -> str:
        """Return nothing: a unix socket has no address."""
        return ""


class TcpServer(ThreadingHTTPServer):
    """Answers on a port."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], source: Source) -> None:
        self.source = source
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, Handler)

    def server_bind(self) -> None:
        """Bind without asking the name service who we are."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "amqpworker", 0

    def verify_request(self, *_: Any) -> bool:
        """Hang up on whoever comes while too many are being answered."""
        return threading.active_count() <= MOST_CLIENTS

    def handle_error(self, *_: Any) -> None:
        """Say nothing: whoever asked has gone."""


class UnixServer(TcpServer):
    """Answers on a unix socket, which its owner alone may use."""

    address_family = socket.AF_UNIX

    def __init__(self, path: str, source: Source) -> None:
        self._path = path
        super().__init__((path, 0), source)

    def server_bind(self) -> None:
        """Take the place of a socket that nobody listens on any more, and of nothing else."""
        path = Path(self._path)
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise ConfigError(f"health {self._path}: there is something that is no socket: give another path.")
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.connect(self._path)
            raise AmqpWorkerError(f"health {self._path}: somebody answers there already.")
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self.socket.bind(self._path)
        finally:
            os.umask(before)
        self.server_name, self.server_port = "amqpworker", 0


def check_address(where: str) -> None:
    """
    Refuse what is no place to answer at, without opening it.

    Raises:
        ConfigError: it is no such thing.
    """
    if "/" not in where:
        split(where)


def split(where: str) -> tuple[str, int]:
    """
    Return host and port.

    Raises:
        ConfigError: it is no such thing.
    """
    host, colon, port = where.rpartition(":")
    if not colon or not port.isdecimal() or not 0 <= int(port) <= 65_535:
        raise ConfigError(f"health {where}: give HOST:PORT, such as 127.0.0.1:8080, or the path of a unix socket.")
    return host.strip("[]") or "127.0.0.1", int(port)


def socket_folder() -> Path:
    """
    Return the folder that this user's supervisors are found in, which others cannot write to.

    Raises:
        ConfigError: somebody else has put something there.
    """
    given = os.environ.get("RUNTIME_DIRECTORY") or os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(given) / "amqpworker" if given else Path(f"/tmp/amqpworker-{os.getuid()}")  # noqa: S108 - checked below
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or folder.is_symlink() or found.st_mode & 0o022:
        raise ConfigError(f"{folder} belongs to somebody else, or others may write to it: remove it.")
    return folder


def sockets() -> list[Path]:
    """Return the sockets of the supervisors on this machine that may be seen."""
    folders = [SHARED, *(SHARED.glob("*/amqpworker") if SHARED.is_dir() else [])]
    with suppress(ConfigError, OSError):
        folders.append(socket_folder())
    found: set[Path] = set()
    for folder in folders:
        with suppress(OSError):
            found.update(folder.glob("*.sock"))
    return sorted(found)


def service_of(place: Path) -> str:
    """Return the name of the service that a socket belongs to, as the unit has it (`RuntimeDirectory=amqpworker/NAME`)."""
    folder = place.parent.parent
    return folder.name if folder.parent == SHARED else ""
