"""A private Redis or Valkey server: from the installed package, in a folder, on a free port of the loopback, as any user."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from amqpworker.errors import ResultStoreError
from amqpworker.results.redis_store import RedisStore
from amqpworker.results.row import ResultRow
from amqpworker.testing import wait_until
from tests.docs import ROOT

PROGRAM = ("redis-server",)
VALKEY_ROOT = ROOT / ".amqpworker/debian-trixie"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class RedisServer:
    """
    The server of a folder, which runs in a `with` block, and ends with the tests however they end.

    `options` are those of its configuration, in pairs of name and value.
    """

    def __init__(self, folder: Path, *options: str, program: Sequence[str] = PROGRAM) -> None:
        self.folder = folder
        self.port = free_port()
        self.socket = folder / "s"
        self._program = program
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
            "dir": self.folder,
            "unixsocket": self.folder / "s",
            "save": "",
        }
        given = [
            part for at, text in enumerate(self._options) for part in ([f"--{text}"] if at % 2 == 0 else text.split())
        ]
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


def error_of(store: RedisStore, *rows: ResultRow) -> str:
    """Return the text of the error that all these rows have."""
    errors = store.put(rows)
    assert set(errors) == {one.id for one in rows}
    (kind,) = {type(error) for error in errors.values()}
    assert kind is ResultStoreError, "it may be stored later"
    return str(errors[rows[-1].id])


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The server that all tests share; each uses a namespace or a database of its own."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Valkey: that of a later Debian, run with the libraries of its own root."""
    assert (VALKEY_ROOT / "usr/bin/valkey-server").exists(), "run `make test-stores`, which fetches it"
    (loader,) = VALKEY_ROOT.glob("usr/lib*/ld-linux-*.so.*")
    (libraries,) = VALKEY_ROOT.glob("usr/lib/*-linux-gnu")
    program = (str(loader), "--library-path", str(libraries), str(VALKEY_ROOT / "usr/bin/valkey-server"))
    with RedisServer(tmp_path_factory.mktemp("valkey"), program=program) as server:
        yield server


@pytest.fixture
def make_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Start servers for one test, with options of their own."""
    with ExitStack() as servers:

        def make(*options: str) -> RedisServer:
            folder = tmp_path / f"redis-{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            return servers.enter_context(RedisServer(folder, *options))

        yield make
