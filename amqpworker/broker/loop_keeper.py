"""
Keeps one connection of aio-pika in an event loop.

Decides which address to connect to and when to leave it, as `io_thread` does for a thread. All of it runs in the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

from amqpworker.broker.address import Address
from amqpworker.broker.aio_connection import AioConnection
from amqpworker.broker.aio_errors import problem_of
from amqpworker.broker.connection import BROKEN, CLOSED, TICK, ConnectionUser
from amqpworker.broker.connection_attempts import ConnectionAttempts
from amqpworker.broker.connection_problem import ConnectionProblem, too_old
from amqpworker.broker.labels import connection_name, program
from amqpworker.broker.liveness import Liveness
from amqpworker.broker.login import mechanism_of
from amqpworker.lifecycle import LiveObjects
from amqpworker.log.logger import get_logger, on_own_connection, silence_on_our_connections
from amqpworker.settings import Settings

log = get_logger(__name__)


class LoopKeeper:
    """
    Connects, and reconnects with jitter, until it is stopped; for the running event loop.

    `attempted` is set once there is a connection, or every address was tried; `problem` is the last reason that there is none.
    """

    def __init__(
        self, name: str, addresses: Sequence[Address], settings: Settings, user: ConnectionUser[AioConnection]
    ) -> None:
        self.name = name
        self.owner: str | None = None
        self.settings = settings
        self.addresses = addresses
        self.user = user
        self.connection: AioConnection | None = None
        self.is_ticking = self.has_ended = False
        self.liveness = Liveness(self, len(addresses))
        self.problem: ConnectionProblem | None = None
        """Why there is no connection, once every address was tried."""
        self.attempted = asyncio.Event()
        """Set once there is a connection, or every address was tried."""
        self._loop = asyncio.get_running_loop()
        # Not that of the coroutine which happens to enter first.
        self._context = contextvars.Context()
        self._context.run(on_own_connection.set, True)
        # Entering the app reports a login that is refused.
        self._attempts = ConnectionAttempts(len(addresses), user_reports_errors=True)
        self._woken = self.is_leaving = False
        self._something_to_do = asyncio.Event()
        self._timers: set[asyncio.TimerHandle] = set()
        self._dropped: ConnectionProblem | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self.end_reason = CLOSED
        for library in ("aio_pika", "aiormq"):
            silence_on_our_connections(library)

    def start(self) -> None:
        """Connect from now on."""
        if self._task is None and not self.is_leaving:
            RUNNING.add(self)
            name = f"amqpworker-{self.name}"
            self._task = self._loop.create_task(self._run(), name=name, context=self._context)

    def forget(self) -> None:
        """In a forked child, any number of times: drop the parent's connection without closing it."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.forget()

    async def stop(self) -> None:
        """Close the connection, and end; if the caller is cancelled, that continues in the background."""
        self.is_leaving = True
        self._something_to_do.set()
        if self._task is None:
            self._end(CLOSED)
            return
        if self._stopping is None:
            self._stopping = self._loop.create_task(self._stop(self._task))
        await asyncio.shield(self._stopping)

    async def _stop(self, task: asyncio.Task[None]) -> None:
        connection = self.connection
        if connection is not None:
            await connection.close()
        task.cancel()
        await asyncio.wait([task])

    def _end(self, text: str) -> None:
        """Do the last work: nothing is sent any more."""
        if self.has_ended:
            return
        self.is_leaving = self.has_ended = True
        self.end_reason = text
        self.attempted.set()
        self._cancel_timers()
        self._guard(lambda: self.user.on_lost(ConnectionProblem(text, "unreachable", str(self.addresses[0]))))

    # ---- for what uses the connection -------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have `user.on_wake` called soon, once for several calls before it runs."""
        if not self._woken:
            self._woken = True
            self._loop.call_soon(self._on_wake, context=self._context)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` in `delay` seconds on this connection, unless the returned function is called before."""

        def call() -> None:
            self._timers.discard(timer)
            self._guard(callback)

        def cancel() -> None:
            self._timers.discard(timer)
            timer.cancel()

        timer = self._loop.call_later(delay, call, context=self._context)
        self._timers.add(timer)
        return cancel

    def drop(self, text: str, close_properly: bool = True) -> None:  # noqa: ARG002 - nothing is lost by cutting it
        """Give up the connection as if it had been lost."""
        if self.connection is not None and self.connection.is_open:
            sentence = f"{text[:1].upper()}{text[1:]}."
            self._dropped = ConnectionProblem(sentence, "unreachable", str(self.connection.address), True)
            self.connection.abort()

    def start_ticking(self) -> None:
        """Tick while anything is waited for; an idle connection costs nothing."""
        if not self.is_ticking and not self.has_ended:
            self.is_ticking = True
            self._loop.call_later(TICK, self._tick, context=self._context)

    def _tick(self) -> None:
        self.is_ticking = False
        if self.has_ended:
            return
        # Also after one that failed: the next keeps the deadlines.
        if self._guard(self.user.on_tick) is not False:
            self.start_ticking()
            self.liveness.expect()

    def _on_wake(self) -> None:
        self._woken = False
        self._something_to_do.set()
        self._guard(self.user.on_wake)
        self.start_ticking()

    # ---- connecting -------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        text = CLOSED
        try:
            await self._keep_connected()
        except asyncio.CancelledError:
            if not self.is_leaving:  # by a program that cancels all tasks that it finds
                log.warning(
                    "connection_cancelled", connection=self.name, effect="messages are sent by a thread from now on"
                )
            raise
        except Exception as error:
            log.error("io_thread_broken", connection=self.name, exc_info=error)
            text = BROKEN
        finally:
            self._end(text)

    async def _keep_connected(self) -> None:
        # At a random address, or all processes would be on one node.
        first = secrets.randbelow(len(self.addresses))
        tried = 0
        while not self.is_leaving:
            await self._attempt(self.addresses[(first + tried) % len(self.addresses)])
            tried += 1
            if tried >= len(self.addresses):
                self.attempted.set()
            if self._attempts.is_failing and tried % len(self.addresses) == 0 and not self.is_leaving:
                await self._back_off()

    async def _attempt(self, address: Address) -> None:
        lost: asyncio.Future[BaseException | None] = self._loop.create_future()
        self._dropped = None

        def on_lost(error: BaseException | None) -> None:
            if not lost.done():
                lost.set_result(error)

        connection = AioConnection(address, self.settings, on_lost, self.wake)
        error: BaseException | None = None
        was_open = False
        try:
            await connection.connect(connection_name(self.settings.app_id or self.owner or program(), self.name))
            if (text := too_old(connection.server_properties)) is not None:
                self._dropped = ConnectionProblem(text, "incompatible", str(address))
            else:
                was_open = True
                self._on_open(connection)
                error = await lost
        except Exception as failure:  # noqa: BLE001 - whatever it is, another attempt follows
            error = failure
        finally:
            self.connection = None
            await connection.close()
            self._cancel_timers()
        received = connection.bytes_received > 0
        mechanism = mechanism_of(address, self.settings)
        problem = self._dropped or problem_of(error, address, was_open, received, connection.close_by_broker, mechanism)
        self._report(problem)

    def _on_open(self, connection: AioConnection) -> None:
        self.connection = connection
        now = time.monotonic()
        self.liveness.on_opened(now)
        self._attempts.on_opened(now)
        self.problem = None
        self.attempted.set()
        log.info("connection_opened", connection=self.name, broker=str(connection.address))
        self._guard(lambda: self.user.on_opened(connection))
        self._on_wake()

    def _report(self, problem: ConnectionProblem) -> None:
        now = time.monotonic()
        if self.is_leaving:
            return
        self._attempts.on_failed(problem, now)
        if self._attempts.is_worth_logging(problem, now):
            event = "connection_lost" if problem.was_open else "connection_failed"
            log.warning(event, connection=self.name, broker=problem.broker, reason=problem.text)
        self.problem = reported = self._attempts.as_reported(problem)
        self._guard(lambda: self.user.on_lost(reported))

    async def _back_off(self) -> None:
        """Wait before the next round of addresses; a message to send shortens it."""
        until = time.monotonic() + self._attempts.pause()
        self._something_to_do.clear()
        try:
            async with asyncio.timeout(until - time.monotonic()):
                await self._something_to_do.wait()
                await asyncio.sleep(self._attempts.shorter_pause())
        except TimeoutError:
            pass

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _guard(self, function: Callable[[], Any]) -> Any:
        """Call `function`; an error in it is logged and does not end the connection."""
        try:
            return function()
        except Exception as error:
            log.error("io_callback_error", connection=self.name, exc_info=error)
            return None


RUNNING: LiveObjects[LoopKeeper] = LiveObjects()


def _forget_all() -> None:
    """In a forked child: drop the connections, or the broker would not see the end of the parent."""
    for keeper in RUNNING.all():
        keeper.forget()


os.register_at_fork(after_in_child=_forget_all)
