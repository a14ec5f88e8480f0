"""
Whether the broker of one connection is there, and does what it is asked to.

Decides when the connection is left: where nothing comes any more (`silence` says when), and where a single question has
no answer although the broker lives.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from amqpworker.broker.channel import open_channel
from amqpworker.broker.pika_connection import ChannelListener, PikaConnection
from amqpworker.broker.silence import LOOK_EVERY, Patience, Silence, Step
from amqpworker.log.logger import get_logger

__all__ = ["Liveness"]

log = get_logger(__name__)

# A connection is quiet if nothing has come for this many seconds.
QUIET = 1.0


class ConnectionKeeper(Protocol):
    """The thread of a connection."""

    name: str
    connection: PikaConnection | None

    @property
    def ticking(self) -> bool:
        """Whether its user waits for something."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Run `callback` later, unless what is returned is called before."""

    def drop(self, text: str, goodbye: bool = True) -> None:
        """Give up the connection."""


class Liveness:
    """Watches over one connection after the other; all of it runs in the I/O thread."""

    def __init__(self, keeper: ConnectionKeeper, addresses: int) -> None:
        self._keeper = keeper
        self._patience = Patience(addresses)
        self._silence: Silence | None = None
        self.must_stay: Callable[[], bool] = lambda: False
        """Asked before a broker is left that lives: something runs that would be run again elsewhere."""

    def opened(self, now: float) -> None:
        """Begin with another connection."""
        self._silence = None
        self._patience.opened(now)

    # ---- a broker that says nothing at all --------------------------------------------------------------------------

    def expect(self, lasted: float = 0.0) -> None:
        """
        Give the connection up if nothing comes from now on, although the broker is asked whether it is there.

        `lasted` is how long it may have been silent already. What was expected once is expected until something comes.
        """
        connection = self._keeper.connection
        if self._silence is None and connection is not None and connection.is_open:
            self._watch(Silence(time.monotonic(), connection.bytes_received, lasted))

    def _watch(self, silence: Silence) -> None:
        self._silence = silence
        self._keeper.call_later(LOOK_EVERY, lambda: self._look(silence))

    def _look(self, silence: Silence) -> None:
        connection, now = self._keeper.connection, time.monotonic()
        if silence is not self._silence:
            return
        self._silence = None
        if connection is None or not connection.is_open:
            return
        received = connection.bytes_received
        if connection.blocked_now:
            silence = Silence(now, received)  # it reads nothing then; its heartbeats say whether it is there
        step = silence.look(now, received, connection.bytes_sent, connection.unsent)
        if step is Step.GIVE_UP:
            log.warning("broker_unresponsive", connection=self._keeper.name, effect="connecting again")
            self._keeper.drop("the broker did not answer", goodbye=False)
            return
        if step is Step.ASK:
            # Of what the connection answers by itself: a queue may be silent while the broker is not.
            open_channel(connection, ChannelListener(), lambda channel: channel.close(), lambda _: None)
        if silence.lasted or self._keeper.ticking:
            self._watch(silence)

    # ---- one question without an answer -----------------------------------------------------------------------------

    def expect_answer(self, late: Callable[[bool], None]) -> Callable[[], None]:
        """
        Call `late` if no answer comes in time; what is returned is to be called once there is one.

        `late` is told whether the connection may be left: nothing comes, all that was written has gone, and nothing that
        runs came by it. A broker that has said `connection.blocked` is waited for.
        """
        keeper, connection = self._keeper, self._keeper.connection
        if connection is None:
            return lambda: None

        timers: list[Callable[[], None]] = []

        def almost_late() -> None:
            received = connection.bytes_received
            timers[:] = [keeper.call_later(QUIET, lambda: over(received))]

        def over(received: int) -> None:
            if connection.blocked_now:
                almost_late()
            else:
                late(connection.bytes_received == received and not connection.unsent and not self.must_stay())

        def answered() -> None:
            for cancel in timers:
                cancel()

        timers.append(keeper.call_later(self._patience.seconds(time.monotonic()) - QUIET, almost_late))
        return answered

    def leave(self, asked: str) -> None:
        """Go to the next address: this broker lives, and does not do what it was asked."""
        log.warning(
            "broker_does_not_answer", connection=self._keeper.name, asked=asked, effect="trying the next address"
        )
        self._patience.exhausted()
        self._keeper.drop(f"the broker did not answer in time when it was asked for {asked}", goodbye=False)
