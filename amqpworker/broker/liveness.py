"""
Whether the broker of a connection is alive and responds.

Decides when to leave it: if nothing arrives any more, or if a single request is not answered although the broker is alive.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from amqpworker.broker.connection import ChannelListener
from amqpworker.broker.silence import CHECK_EVERY, AnswerTimeout, Silence, Step
from amqpworker.log.logger import get_logger

if TYPE_CHECKING:
    from amqpworker.broker.keeper import ConnectionKeeper

log = get_logger(__name__)

# A connection is quiet if nothing has arrived for this many seconds.
QUIET = 1.0


class Liveness:
    """Watches the present connection, in its thread or event loop."""

    def __init__(self, keeper: ConnectionKeeper[Any], addresses: int) -> None:
        self._keeper = keeper
        self._answer_timeout = AnswerTimeout(addresses)
        self._silence: Silence | None = None
        self.must_stay: Callable[[], bool] = lambda: False
        """Returns whether a live broker must not be left: something is running that would be redelivered."""

    def on_opened(self, now: float) -> None:
        """Another connection is open."""
        self._silence = None
        self._answer_timeout.on_opened(now)

    # ---- a broker that sends nothing at all -------------------------------------------------------------------------

    def expect(self, lasted: float = 0.0) -> None:
        """
        Give up the connection if nothing arrives from now on, not even a response to a probe.

        `lasted` is how long it may have been silent already. Without effect while something is expected already.
        """
        connection = self._keeper.connection
        if self._silence is None and connection is not None and connection.is_open:
            self._watch(Silence(time.monotonic(), connection.bytes_received, lasted))

    def _watch(self, silence: Silence) -> None:
        self._silence = silence
        self._keeper.call_later(CHECK_EVERY, lambda: self._check(silence))

    def _check(self, silence: Silence) -> None:
        connection, now = self._keeper.connection, time.monotonic()
        if silence is not self._silence:
            return
        self._silence = None
        if connection is None or not connection.is_open:
            return
        received = connection.bytes_received
        if connection.is_blocked:
            silence = Silence(now, received)  # it reads nothing then; its heartbeats show whether it is alive
        step = silence.check(now, received, connection.bytes_sent, connection.unsent)
        if step is Step.GIVE_UP:
            log.warning("broker_unresponsive", connection=self._keeper.name, effect="connecting again")
            self._keeper.drop("the broker did not respond", close_properly=False)
            return
        if step is Step.PROBE:
            # By a request that needs no queue: a queue may be silent while the broker is not.
            connection.open_channel(ChannelListener(), lambda channel: channel.close(), lambda _: None)
        if silence.lasted or self._keeper.is_ticking:
            self._watch(silence)

    # ---- one request without an answer -------------------------------------------------------------------------------

    def expect_answer(self, on_late: Callable[[bool], None]) -> Callable[[], None]:
        """
        Call `on_late` if there is no answer in time; the caller calls the returned function once there is one.

        The argument of `on_late` is whether the connection may be left: nothing arrives, everything written was sent, and
        nothing is running that was delivered on it. A broker that has sent `connection.blocked` is waited for.
        """
        keeper, connection = self._keeper, self._keeper.connection
        if connection is None:
            return lambda: None

        timers: list[Callable[[], None]] = []

        def on_almost_late() -> None:
            received = connection.bytes_received
            timers[:] = [keeper.call_later(QUIET, lambda: on_time_over(received))]

        def on_time_over(received: int) -> None:
            if connection.is_blocked:
                on_almost_late()
            else:
                on_late(connection.bytes_received == received and not connection.unsent and not self.must_stay())

        def stop_waiting() -> None:
            for cancel in timers:
                cancel()

        timers.append(keeper.call_later(self._answer_timeout.seconds(time.monotonic()) - QUIET, on_almost_late))
        return stop_waiting

    def leave(self, request: str) -> None:
        """Go to the next address: this broker is alive but has not answered a request."""
        log.warning(
            "broker_does_not_answer", connection=self._keeper.name, request=request, effect="trying the next address"
        )
        self._answer_timeout.on_left()
        self._keeper.drop(f"the broker did not answer the request for {request} in time", close_properly=False)
