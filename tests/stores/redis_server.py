"""A private Redis or Valkey server: from the installed package, in a folder, on a free port of the loopback, as any user."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from amqpworker.testing import wait_until

PROGRAM = ("redis-server",)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class RedisServer:
    """
    The server of a folder, which runs in a `with` block, and ends with the tests however they end.

    `options` are those of its configuration, in pairs of name and value. `program` is what starts a server; if it has another root,
    `inside` is the name of the folder there.
    """

    def __init__(
        self, folder: Path, *options: str, program: Sequence[str] = PROGRAM, inside: Path | None = None
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.socket = folder / "s"
        self._program = program
        self._inside = inside or folder
        self._options = [*options]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        own = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self._inside,
            "unixsocket": self._inside / "s",
            "save": "",
        }
        given = [f"--{name}" if at % 2 == 0 else name for at, name in enumerate(self._options)]
        command = [*self._program, *(text for name, value in own.items() for text in (f"--{name}", str(value))), *given]
        log = (self.folder / "log").open("ab")
        # a child of these tests ends with them
        tied = ["setpriv", "--pdeathsig", "KILL", *command]
        self._process = subprocess.Popen(tied, stdout=log, stderr=log)
        log.close()
        wait_until(self._is_up, 20, what=f"the server has started: {self.folder / 'log'}")

    def kill(self) -> None:
        """End it as a power cut does."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGCONT)
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def stop(self) -> None:
        """Keep it from answering: it does nothing until `go_on`."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def client(self) -> Redis:
        """Return a client, which its user closes."""
        return Redis(port=self.port, socket_timeout=5, protocol=2, retry=Retry(NoBackoff(), 0))

    def command(self, *parts: str | bytes | float) -> object:
        """Have it carry out one command."""
        with self.client() as client:
            return client.execute_command(*parts)

    def info(self, name: str) -> float:
        """Return a figure."""
        with self.client() as client:
            return float(client.info()[name])

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()
        try:
            return self.command("PING") in (b"PONG", True)
        except RedisError as error:
            # it asks for a password
            return "NOAUTH" in str(error) or "Authentication" in str(error)
