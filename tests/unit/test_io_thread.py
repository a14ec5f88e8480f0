"""The thread of a connection, without one: what goes on whatever its user does."""

from __future__ import annotations

import socket

from amqpworker.broker.address import addresses
from amqpworker.broker.connection import IOThread
from amqpworker.broker.reasons import ConnectionProblem
from amqpworker.broker.seam import PublicConnection
from amqpworker.settings import Settings
from tests.support import wait_until


class Stumbles:
    """A user whose first look at deadlines fails."""

    def __init__(self) -> None:
        self.looks = 0

    def opened(self, connection: PublicConnection) -> None: ...

    def lost(self, problem: ConnectionProblem) -> None: ...

    def woken(self) -> None: ...

    def tick(self) -> bool:
        self.looks += 1
        if self.looks == 1:
            raise LookupError
        return self.looks < 4


def test_a_look_at_deadlines_that_fails_is_not_the_last() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        user = Stumbles()
        io = IOThread("test", addresses(f"amqp://127.0.0.1:{port}"), Settings(), user)
        io.start()
        try:
            wait_until(lambda: user.looks >= 2, 5)
        finally:
            assert io.stop(5)
