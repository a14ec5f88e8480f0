"""
What a supervisor answers to whoever asks how it stands, by HTTP on loopback or a unix socket.

Decides which state is alive and which is ready. It answers in threads of its own, from what was seen at the last look, so
that it does while processes hang; a supervisor that does not look any more is not alive.
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
from amqpworker.supervisor.listener import TcpServer, UnixServer
from amqpworker.supervisor.sockets import remove_abandoned, socket_folder
from amqpworker.supervisor.status import SupervisorStatus, status_line

__all__ = ["HealthServer", "answer", "answering", "check_address", "split"]

log = get_logger(__name__)

# A supervisor looks once in a second.
ALIVE_WITHIN = 10.0

Source = Callable[[], SupervisorStatus | None]


def answer(path: str, state: SupervisorStatus | None, now: float) -> tuple[int, dict[str, Any]]:
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

        def respond(path: str) -> tuple[int, dict[str, Any]]:
            return answer(path, source(), time.time())

        try:
            server = UnixServer(where, respond) if self._path else TcpServer(split(where), respond)
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
