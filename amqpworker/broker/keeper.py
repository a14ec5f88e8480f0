"""
What keeps one connection to RabbitMQ open: the part that is the same in a thread and in an event loop.

Decides in which order addresses are tried, what is logged, and when the user of the connection is called; `io_thread` and
`loop_keeper` decide when to give it up.
"""

from __future__ import annotations

import itertools
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from amqpworker.broker.address import Address
from amqpworker.broker.connection import Connection, ConnectionUser
from amqpworker.broker.connection_attempts import ConnectionAttempts
from amqpworker.broker.connection_problem import ConnectionProblem, too_old
from amqpworker.broker.labels import connection_name, program
from amqpworker.broker.liveness import Liveness
from amqpworker.lifecycle import LiveObjects
from amqpworker.log.logger import get_logger
from amqpworker.settings import Settings

log = get_logger(__name__)

CLOSED = "The connection to RabbitMQ was closed by this process."
BROKEN = "An error in amqpworker has ended the connection to RabbitMQ (connection_abandoned in the log)."
# Deadlines are checked this often while anything is waited for.
TICK = 0.05

_C = TypeVar("_C", bound=Connection)


class ConnectionKeeper(Generic[_C]):
    """
    Connects for its user, and connects again with jitter, until it is stopped.

    With `user_reports_errors`, a permanent error such as a denied login is not logged before the first connection: the user
    reports it.
    """

    def __init__(
        self,
        name: str,
        addresses: Sequence[Address],
        settings: Settings,
        user: ConnectionUser[_C],
        user_reports_errors: bool,
    ) -> None:
        self.name = name
        self.owner: str | None = None
        """The owner of the connection in the broker's lists, instead of the program, if the settings name no app."""
        self.settings = settings
        self.addresses = addresses
        self.user = user
        self.connection: _C | None = None
        self.is_ticking = False
        """Whether `user.on_tick` will be called soon."""
        self.is_retired = False
        """Whether it will end, at once or as soon as nothing is waited for: new work needs another one."""
        self.is_stopping = False
        """Whether it ends at once, without another connection."""
        self.has_ended = False
        """Whether it has done its last work: nothing is sent any more."""
        self.end_reason = CLOSED
        """Why nothing is sent once it has ended."""
        self.liveness = Liveness(self, len(addresses))
        self._attempts = ConnectionAttempts(len(addresses), user_reports_errors)
        self._reason_to_drop: ConnectionProblem | None = None
        self._woken = False

    # ---- for what uses the connection -------------------------------------------------------------------------------

    def start(self) -> None:
        """Connect from now on; any number of times, without effect once it has ended."""
        raise NotImplementedError

    def wake(self) -> None:
        """Call `user.on_wake` soon, once for all calls of this until then."""
        raise NotImplementedError

    def call_later(self, delay: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` in `delay` seconds on this connection, unless the returned function is called before."""
        raise NotImplementedError

    def drop(self, text: str, close_properly: bool = True) -> None:
        """Give up the connection as if it had been lost; without an AMQP close if no response to one is expected."""
        raise NotImplementedError

    def start_ticking(self) -> None:
        """Check deadlines from now on while anything is waited for. In the thread or event loop of the connection only."""
        if not self.is_ticking:
            self.is_ticking = self._tick_later()

    def _tick_later(self) -> bool:
        """Call `_tick` in `TICK` seconds; return false if nothing can be waited for."""
        raise NotImplementedError

    def forget(self) -> None:
        """In a forked child, any number of times: drop the parent's connection without closing it."""
        raise NotImplementedError

    # ---- connecting -------------------------------------------------------------------------------------------------

    def _endless_addresses(self) -> Iterator[Address]:
        # Each process starts at a random address, or all would be on one node; by the system's generator, since forked
        # processes, or those that set a seed, would all have the same number.
        first = secrets.randbelow(len(self.addresses))
        return itertools.cycle([*self.addresses[first:], *self.addresses[:first]])

    def _label(self) -> str:
        """Return the name of the connection in the broker's lists."""
        return connection_name(self.settings.app_id or self.owner or program(), self.name)

    def _is_too_old(self, server_properties: dict[str, Any], address: Address) -> bool:
        """Return whether the broker cannot be used; that is why the connection is given up then."""
        if text := too_old(server_properties):
            self._reason_to_drop = ConnectionProblem(text, "incompatible", str(address))
        return text is not None

    def _note_drop(self, text: str, address: Address) -> None:
        self._reason_to_drop = ConnectionProblem(f"{text[:1].upper()}{text[1:]}.", "unreachable", str(address), True)

    def _on_blocked(self, connection: _C, is_blocked: bool) -> None:
        """The broker has an alarm from now on, or has none any more."""
        connection.is_blocked = is_blocked
        if is_blocked:
            log.warning("connection_blocked", connection=self.name, effect="the broker has an alarm: nothing is sent")
        else:
            log.info("connection_unblocked", connection=self.name)
            self._on_wake()

    def _take_reason_to_drop(self) -> ConnectionProblem | None:
        """Return why the last connection was given up, if this process did that."""
        reason, self._reason_to_drop = self._reason_to_drop, None
        return reason

    def _opened(self, connection: _C, address: Address) -> None:
        now = time.monotonic()
        self.liveness.on_opened(now)
        self._attempts.on_opened(now)
        log.info("connection_opened", connection=self.name, broker=str(address))
        self._guard(lambda: self.user.on_opened(connection))
        self._on_wake()

    def _note_failure(self, problem: ConnectionProblem) -> None:
        """Count a connection that was lost or could not be made, and log it unless that was done a moment ago."""
        now = time.monotonic()
        self._attempts.on_failed(problem, now)
        if self._attempts.is_worth_logging(problem, now):
            event = "connection_lost" if problem.was_open else "connection_failed"
            log.warning(event, connection=self.name, broker=problem.broker, reason=problem.text)

    # ---- calling the user -------------------------------------------------------------------------------------------

    def _on_wake(self) -> None:
        # Reset first: what is added after `on_wake` wakes us again.
        self._woken = False
        self._guard(self.user.on_wake)
        self.start_ticking()

    def _tick(self) -> None:
        self.is_ticking = False
        if self._check_deadlines():
            self.start_ticking()
            self.liveness.expect()

    def _check_deadlines(self) -> bool:
        """Have the user check its deadlines; return whether anything is waited for."""
        # Also after a check that failed: the next one keeps the deadlines.
        return self._guard(self.user.on_tick) is not False

    def _guard(self, function: Callable[[], Any]) -> Any:
        """Call `function`; an error in it is logged and does not end the connection."""
        try:
            return function()
        except Exception as error:
            log.error("io_callback_error", connection=self.name, exc_info=error)
            return None


RUNNING: LiveObjects[ConnectionKeeper[Any]] = LiveObjects()


def _forget_all() -> None:
    """In a forked child: drop the connections, or the broker would not see the end of the parent."""
    for keeper in RUNNING.all():
        keeper.forget()


os.register_at_fork(after_in_child=_forget_all)
