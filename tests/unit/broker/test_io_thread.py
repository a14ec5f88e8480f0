"""The thread of a connection, without one: what continues whatever its user does."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest

from amqpworker.broker import io_thread as connection_module
from amqpworker.broker.address import addresses
from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.broker.io_thread import IOThread
from amqpworker.broker.pika_connection import PikaConnection
from amqpworker.settings import Settings
from tests.support import wait_until


class Stumbles:
    """A user whose first check of deadlines fails."""

    def __init__(self) -> None:
        self.looks = 0
        self.problems: list[str] = []

    def on_opened(self, connection: PikaConnection) -> None: ...

    def on_lost(self, problem: ConnectionProblem) -> None:
        self.problems.append(problem.text)

    def on_wake(self) -> None: ...

    def on_tick(self) -> bool:
        self.looks += 1
        if self.looks == 1:
            raise LookupError
        return self.looks < 4


def test_a_check_of_deadlines_that_fails_is_not_the_last() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        user = Stumbles()
        io = IOThread("test", addresses(f"amqp://127.0.0.1:{port}"), Settings(), user)
        io.start()
        try:
            wait_until(lambda: user.looks >= 2, 5)
        finally:
            assert io.stop(5)


def test_a_moment_without_free_descriptors_is_a_failed_attempt_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    def none_left() -> Any:
        tries.append(1)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(connection_module, "IOLoop", none_left)
    user = Stumbles()
    io = IOThread("test", addresses("amqp://127.0.0.1:1"), Settings(), user)
    io.start()
    try:
        wait_until(lambda: len(tries) >= 2, 10, "another attempt")
        assert "Too many open files" in user.problems[0]
        assert not io.has_ended
    finally:
        assert io.stop(5)


def test_a_thread_that_cannot_continue_notifies_its_user_and_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    user = Stumbles()
    io = IOThread("test", addresses("amqp://127.0.0.1:1"), Settings(), user)

    def closed(_timeout: float) -> bool:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr(io._waker, "wait", closed)
    io.start()
    assert io.join(10)
    assert io.has_ended
    assert user.problems[-1] == connection_module.BROKEN
