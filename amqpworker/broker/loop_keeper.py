"""
Keeps one connection of aio-pika in an event loop.

Decides when to give up a connection, as `io_thread` does for a thread. All of it runs in the loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable, Sequence

from amqpworker.broker.address import Address
from amqpworker.broker.aio_connection import AioConnection
from amqpworker.broker.aio_errors import problem_of, was_reset
from amqpworker.broker.connection import ConnectionUser
from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.broker.keeper import BROKEN, CLOSED, RUNNING, TICK, ConnectionKeeper
from amqpworker.broker.login import mechanism_of
from amqpworker.log.logger import get_logger, on_own_connection, silence_on_our_connections
from amqpworker.settings import Settings

log = get_logger(__name__)


class LoopKeeper(ConnectionKeeper[AioConnection]):
    """Connects, and connects again, until it is stopped; for the running event loop."""

    def __init__(
        self, name: str, addresses: Sequence[Address], settings: Settings, user: ConnectionUser[AioConnection]
    ) -> None:
        # Entering the app reports a login that is refused.
        super().__init__(name, addresses, settings, user, user_reports_errors=True)
        self.problem: ConnectionProblem | None = None
        """Why the last attempt failed; None while there is a connection."""
        self.attempted = asyncio.Event()
        """Set once there is a connection, or every address was tried with a result that is not in doubt."""
        self._loop = asyncio.get_running_loop()
        # Not that of the coroutine which happens to enter first.
        self._context = contextvars.Context()
        self._context.run(on_own_connection.set, True)
        self._something_to_do = asyncio.Event()
        self._may_be_refused = False
        self._timers: set[asyncio.TimerHandle] = set()
        self._task: asyncio.Task[None] | None = None
        self._stop_task: asyncio.Task[None] | None = None
        for library in ("aio_pika", "aiormq"):
            silence_on_our_connections(library)

    def start(self) -> None:
        """Connect from now on."""
        if self._task is None and not self.is_stopping:
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
        self.is_retired = self.is_stopping = True
        self._something_to_do.set()
        if self._task is None:
            self._end(CLOSED)
            return
        if self._stop_task is None:
            self._stop_task = self._loop.create_task(self._stop(self._task))
        await asyncio.shield(self._stop_task)

    async def _stop(self, task: asyncio.Task[None]) -> None:
        connection = self.connection
        if connection is not None and connection.is_open:
            await connection.close()
        task.cancel()
        await asyncio.wait([task])

    def _end(self, text: str) -> None:
        """Do the last work: nothing is sent any more."""
        if self.has_ended:
            return
        self.is_retired = self.is_stopping = self.has_ended = True
        self.end_reason = text
        if self._loop.is_closed():  # nothing can be woken in it any more
            return
        self.attempted.set()
        self._cancel_timers()
        self._guard(lambda: self.user.on_lost(ConnectionProblem(text, "unreachable", str(self.addresses[0]))))

    # ---- for what uses the connection -------------------------------------------------------------------------------

    def wake(self) -> None:
        """Call `user.on_wake` soon, once for all calls of this until then."""
        if not self._woken:
            self._woken = True
            self._loop.call_soon(self._on_wake, context=self._context)

    def wake_now(self) -> None:
        """Call `user.on_wake` before this returns; from a coroutine of the loop."""
        if not self.has_ended:
            self._on_wake()

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
            self._note_drop(text, self.connection.address)
            self.connection.abort()

    def retire(self) -> None:
        """Take no new work: it will be stopped as soon as nothing is waited for."""
        self.is_retired = True

    def _tick_later(self) -> bool:
        if not self.has_ended:
            self._loop.call_later(TICK, self._tick, context=self._context)
        return not self.has_ended

    def _on_wake(self) -> None:
        self._something_to_do.set()
        super()._on_wake()

    # ---- connecting -------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        text = CLOSED
        try:
            await self._keep_connected()
        except asyncio.CancelledError:
            if not self.is_retired:  # by a program that cancels all tasks that it finds
                log.warning(
                    "connection_cancelled", connection=self.name, effect="messages are sent by a thread from now on"
                )
            raise
        except Exception as error:
            log.error("connection_abandoned", connection=self.name, exc_info=error)
            text = BROKEN
        finally:
            self._end(text)

    async def _keep_connected(self) -> None:
        for tried, address in enumerate(self._endless_addresses(), 1):
            if self.is_stopping:
                return
            await self._attempt(address)
            if tried >= len(self.addresses) and not self._may_be_refused:
                self.attempted.set()
            if self._attempts.is_failing and tried % len(self.addresses) == 0 and not self.is_stopping:
                await self._back_off()

    async def _attempt(self, address: Address) -> None:
        lost: asyncio.Future[BaseException | None] = self._loop.create_future()

        def on_lost(error: BaseException | None) -> None:
            if not lost.done():
                lost.set_result(error)

        def on_blocked(is_blocked: bool) -> None:
            self._on_blocked(connection, is_blocked)

        self.connection = connection = AioConnection(address, self.settings, on_lost, self.wake, on_blocked)
        error: BaseException | None = None
        was_open = False
        try:
            await connection.connect(self._label())
            if not self._is_too_old(connection.server_properties, address):
                was_open = True
                self._on_open(connection)
                error = await lost
        except Exception as failure:  # whatever it is, another attempt follows
            if self._task is not None and self._task.cancelling():
                raise asyncio.CancelledError from failure  # aiormq makes an error of a cancel while it loses its connection
            error = failure
        finally:
            self.connection = None
            await connection.close()
            self._cancel_timers()
        problem = self._take_reason_to_drop() or problem_of(
            error,
            address,
            was_open=was_open,
            has_received=connection.bytes_received > 0,
            close=connection.close_by_broker,
            mechanism=mechanism_of(address, self.settings),
        )
        # A server that refuses our certificate resets the connection, and that may overtake its reason.
        self._may_be_refused = address.tls and not was_open and was_reset(error)
        self._report(problem)

    def _on_open(self, connection: AioConnection) -> None:
        self.problem = None
        self.attempted.set()
        self._opened(connection, connection.address)

    def _report(self, problem: ConnectionProblem) -> None:
        if not self.is_stopping:
            self._note_failure(problem)
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
