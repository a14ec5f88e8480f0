"""
A private PostgreSQL, and pgbouncer in front of it: on loopback, with fsync, by a user who is not root, each test in a database.

They end with the test process: setpriv has the kernel send them a signal then.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from amqpworker.testing.processes import free_ports
from tests.support import wait_until

USER = "nobody"
POOL_SIZE = 3
_numbers = itertools.count(1)


def unprivileged(end_signal: str, *command: str) -> list[str]:
    """Return a command that runs as another user if this is root, and gets a signal when the caller's thread ends."""
    group = subprocess.run(["id", "-g", USER], capture_output=True, text=True, check=True).stdout.strip()
    switch = [f"--reuid={USER}", f"--regid={group}", "--clear-groups"] if os.geteuid() == 0 else []
    return ["setpriv", *switch, f"--pdeathsig={end_signal}", *command]


def folder_of_user() -> Path:
    """Create a folder that the user of the server can enter, as that of pytest is not."""
    folder = Path(tempfile.mkdtemp(prefix="amqpworker-"))
    if os.geteuid() == 0:
        shutil.chown(folder, USER)
    return folder


class PostgresServer:
    """A PostgreSQL server that can be stopped, killed and started again."""

    def __init__(self) -> None:
        versions = sorted(Path("/usr/lib/postgresql").iterdir(), key=lambda one: int(one.name))
        self._programs = versions[-1] / "bin"
        self.folder = folder_of_user()
        (self.port,) = free_ports(1)
        self._data = self.folder / "data"
        self._process: subprocess.Popen[bytes] | None = None
        init = [str(self._programs / "initdb"), "-D", str(self._data), "-U", "postgres", "--auth=trust", "-E", "UTF8"]
        subprocess.run(
            unprivileged("KILL", *init, "--locale=C.UTF-8"), check=True, capture_output=True, cwd=self.folder
        )
        # one user needs a password, so that wrong ones can be tested
        (self._data / "pg_hba.conf").write_text(
            "host all locked 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n"
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start, and wait until clients are accepted."""
        options = [
            *("-D", str(self._data), "-p", str(self.port), "-k", str(self.folder)),
            *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=60", "-c", "shared_buffers=32MB"),
        ]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                unprivileged("QUIT", str(self._programs / "postgres"), *options),
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
            )
        wait_until(self._answers, timeout=60, what="PostgreSQL accepts clients")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Execute a statement as the superuser, outside of a transaction."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description is not None else []

    def stop(self) -> None:
        """End as `systemctl restart` does: connections are ended, data is written."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill all processes of the server, as a power cut would."""
        children = self._children()
        self._end(signal.SIGKILL)
        for child in children:
            with_signal(child, signal.SIGKILL)

    def freeze(self) -> None:
        """Stop all processes of the server: connections stay open, and nothing answers."""
        for pid in (self.pid, *self._children()):
            with_signal(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue them."""
        for pid in (self.pid, *self._children()):
            with_signal(pid, signal.SIGCONT)

    def discard(self) -> None:
        """Stop and remove everything."""
        if self._process is not None:
            self.thaw()
            self._end(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _children(self) -> list[int]:
        return [int(one) for one in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(30)
        self._process = None


def with_signal(pid: int, number: signal.Signals) -> None:
    """Signal a process that may have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server that tests may restart, if they start it again."""
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.discard()


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """The name of an empty database."""
    name = f"test{next(_numbers)}"
    postgres.execute(f"CREATE DATABASE {name}")
    yield name
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def pgbouncer(postgres: PostgresServer) -> Iterator[int]:
    """The port of a pgbouncer in transaction mode, with a few connections to the server."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None
    folder = folder_of_user()
    (port,) = free_ports(1)
    (folder / "users").write_text('"postgres" ""\n')
    (folder / "ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={postgres.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        f"unix_socket_dir =\nauth_type = trust\nauth_file = {folder}/users\npool_mode = transaction\n"
        f"default_pool_size = {POOL_SIZE}\nserver_round_robin = 1\nserver_login_retry = 1\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            unprivileged("TERM", program, str(folder / "ini")), stdout=log, stderr=log, start_new_session=True
        )

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    try:
        wait_until(answers, timeout=30, what="pgbouncer accepts clients")
        yield port
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)
