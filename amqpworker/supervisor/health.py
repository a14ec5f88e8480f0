"""
Health checks and status over HTTP, on a port or a unix socket.

Decides which status is alive and which is ready. Requests are answered in threads of their own, from the status at the
supervisor's last check; a supervisor that does not check any more is not alive.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from amqpworker.errors import AmqpWorkerError, ConfigError
from amqpworker.lifecycle import start_thread
from amqpworker.log.logger import get_logger
from amqpworker.supervisor.http_server import TcpServer, UnixServer
from amqpworker.supervisor.sockets import remove_abandoned, socket_folder
from amqpworker.supervisor.status import SupervisorStatus, status_line

log = get_logger(__name__)

# A supervisor checks its processes once per second.
ALIVE_WITHIN = 10.0

Source = Callable[[], SupervisorStatus | None]


def respond_to(path: str, state: SupervisorStatus | None, now: float) -> tuple[int, dict[str, Any]]:
    """Return the status code and the JSON object for a path; `now` is seconds since the epoch."""
    if path not in {"/livez", "/readyz", "/status"}:
        return 404, {"error": "available paths: /livez, /readyz and /status"}
    if state is None:
        return 503, {"status": "starting"}
    age = now - state.at
    if age >= ALIVE_WITHIN:
        return 503, {"status": f"the supervisor has not checked its processes for {age:.0f} s"}
    brief: dict[str, Any] = {"status": status_line(state)}
    if path == "/livez":
        return 200, brief
    if path == "/readyz":
        ready = state.consuming >= state.wanted and not state.stopping
        return 200 if ready else 503, {**brief, "paused": state.paused} if state.paused else brief
    return 200, {
        **brief,
        "paused": state.paused,
        "consuming": state.consuming,
        "running": state.running,
        "unknown": state.unknown,
        **asdict(state),
    }


class HealthServer:
    """
    Answers at `address`: `HOST:PORT`, or the path of a unix socket.

    Raises ConfigError if it cannot listen there, AmqpWorkerError if it may later: another process may still do so.
    """

    def __init__(self, address: str, source: Source) -> None:
        self.address = address
        self._path = Path(address) if "/" in address else None
        server = None

        def respond(path: str) -> tuple[int, dict[str, Any]]:
            return respond_to(path, source(), time.time())

        try:
            server = UnixServer((address, 0), respond) if self._path else TcpServer(split_address(address), respond)
            start_thread(threading.Thread(target=server.serve_forever, name="amqpworker-health", daemon=True))
        except (OSError, OverflowError, TypeError, ValueError) as error:  # the last two: a null character
            reason = getattr(error, "strerror", None) or str(error)
            temporary = getattr(error, "errno", None) in {errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EAGAIN}
            if server is not None:
                server.server_close()
            kind = AmqpWorkerError if temporary else ConfigError
            raise kind(f"health {address}: cannot listen there: {reason}.") from error
        self._server = server

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


@contextmanager
def serve_status(address: str | None, source: Source) -> Iterator[None]:
    """Answer at `address`, and at the socket of `amqpworker status`, which is left out if the machine does not allow it."""
    servers = [HealthServer(address, source)] if address is not None else []
    try:
        folder = socket_folder()
        remove_abandoned(folder)
        servers.append(HealthServer(str(folder / f"{os.getpid()}.sock"), source))
    except (AmqpWorkerError, OSError) as error:
        log.info("status_not_served", reason=str(error), effect="`amqpworker status` does not find this pool")
    try:
        yield
    finally:
        for server in servers:
            server.close()


def check_address(address: str) -> None:
    """Raise ConfigError if this is neither an address nor a path."""
    if "/" not in address:
        split_address(address)


def split_address(address: str) -> tuple[str, int]:
    """Return host and port; raises ConfigError if the address is not of the form HOST:PORT."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or not 0 <= int(port) <= 65_535:
        raise ConfigError(f"health {address}: give HOST:PORT, such as 127.0.0.1:8080, or the path of a unix socket.")
    return host.strip("[]") or "127.0.0.1", int(port)
