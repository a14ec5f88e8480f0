"""
The thread of one connection to RabbitMQ.

Decides when to give up a connection, and when the thread ends. Its user (`publisher`, `consumer`, `admin`) is called in this
thread only; other threads `wake` it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

from pika.adapters.select_connection import IOLoop

from amqpworker.broker.address import Address
from amqpworker.broker.connection import ConnectionUser
from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.broker.keeper import BROKEN, CLOSED, RUNNING, TICK, ConnectionKeeper
from amqpworker.broker.pika_connection import PikaConnection, socket_of
from amqpworker.broker.pika_errors import problem_of
from amqpworker.broker.pika_parameters import parameters
from amqpworker.broker.single_start_thread import SingleStartThread
from amqpworker.errors import AmqpWorkerError
from amqpworker.lifecycle import Waker
from amqpworker.log.logger import get_logger, silence_on_our_connections
from amqpworker.settings import Settings

log = get_logger(__name__)

THREADS = "amqpworker-"
BEAT = 1.0
# A broker that does not confirm our close within this many seconds is left without.
CLOSE_TIMEOUT = 2.0


class IOThread(ConnectionKeeper[PikaConnection]):
    """
    The thread of one connection: runs pika's loop, and connects again until it is stopped or retired.

    A forked child must make its own: it drops the parent's socket. Starting and ending take no lock: a signal handler may do
    both while it interrupts either.
    """

    def __init__(
        self,
        name: str,
        addresses: Sequence[Address],
        settings: Settings,
        user: ConnectionUser[PikaConnection],
        user_reports_errors: bool = False,
    ) -> None:
        super().__init__(name, addresses, settings, user, user_reports_errors)
        self._address = addresses[0]
        self._loop: Any = None
        self._waker = Waker()
        self._open = False
        self.beat: Callable[[], None] | None = None
        """Called about once per second by the thread, to show that it is alive."""
        self._thread = SingleStartThread(self._run, f"{THREADS}{name}", self._finish)
        self._needed: Callable[[], bool] | None = None
        silence_on_our_connections("pika")

    # ---- from any thread --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, which connects; any number of times, without effect after `stop`."""
        RUNNING.add(self)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether it has ended or was asked to."""
        return self.has_ended or self.is_retired

    def wake(self) -> None:
        """Call `user.on_wake` soon, once for all calls of this until then."""
        if self._woken:
            return
        self._woken = True
        self._waker.set()

    def stop(self, timeout: float) -> bool:
        """Close the connection and end the thread; return false if it did not end in time."""
        self.is_stopping = True
        self._retire()
        return self.join(timeout)

    def retire(self, needed: Callable[[], bool] | None = None) -> None:
        """
        End the thread once its user waits for nothing and it is not `needed`; this does not wait for that.

        May be called anywhere, even in a finalizer.
        """
        self._needed = needed
        self._retire()

    def _retire(self) -> None:
        self.is_retired = True
        if self._thread.prevent():
            self._finish(CLOSED)
        self._waker.set()

    def join(self, timeout: float) -> bool:
        """Wait until the thread has ended, unless this is an I/O thread; return false if it has not ended in time."""
        return self._thread.join(timeout)

    def forget(self) -> None:
        """In a forked child, any number of times: close the parent's socket here without closing the connection."""
        connection, self.connection = self.connection, None
        if (sock := socket_of(connection)) is not None:
            # Detached first, so that neither TLS nor the garbage collector closes the parent's connection.
            os.close(sock.detach())

    # ---- from the I/O thread ----------------------------------------------------------------------------------------

    def call_later(self, delay: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` in `delay` seconds on this connection, unless the returned function is called before."""
        loop = self._loop
        if loop is None:
            return lambda: None
        timer = loop.call_later(delay, lambda: self._guard(callback))
        return lambda: loop.remove_timeout(timer)

    def drop(self, text: str, close_properly: bool = True) -> None:
        """Give up the connection as if it had been lost; without an AMQP close if no response to one is expected."""
        if self.connection is None or not self.connection.is_open:
            return
        self._note_drop(text, self._address)
        if close_properly:
            self.connection.close(reply_code=320, reply_text=text)
            self._loop.call_later(CLOSE_TIMEOUT, self._loop.stop)
        else:
            self._loop.stop()

    def _tick_later(self) -> bool:
        """Have `_tick` called, also while it connects."""
        if self._loop is None:
            return False
        self._loop.call_later(TICK, self._tick)
        return True

    # ---- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        text = CLOSED
        try:
            self._keep_connected()
        except Exception as error:
            # Other code has closed our descriptors, for example: this thread cannot connect any more.
            log.error("connection_abandoned", connection=self.name, exc_info=error)
            text = BROKEN
        self._finish(text)

    def _finish(self, text: str) -> None:
        self.end_reason = text
        self.has_ended = True
        self._guard(lambda: self.user.on_lost(ConnectionProblem(text, "unreachable", str(self._address))))
        self._thread.finished()

    def _keep_connected(self) -> None:
        for tried, address in enumerate(self._endless_addresses(), 1):
            if self.is_stopping:
                return
            self._attempt(address)
            if self._attempts.is_failing and tried % len(self.addresses) == 0:
                self._back_off()

    def _attempt(self, address: Address) -> None:
        self._address = address
        self._open = self.is_ticking = False
        loop: Any = None
        try:
            loop = IOLoop()
            self.connection = self._connect(address, loop)
            self._loop = loop
            loop.add_handler(self._waker.fd, self._on_waker, loop.READ)
            self.start_ticking()
            self._beat(loop)
            if self.is_stopping:
                self._close()
            loop.start()
        except Exception as error:
            # pika raises if it is closed while it is connecting.
            if not (self.is_stopping or isinstance(error, AmqpWorkerError)):
                log.error("io_thread_error", connection=self.name, exc_info=error)
            self._reason_to_drop = problem_of(error, address, self._open)
        finally:
            self._loop = None
            if (sock := socket_of(self.connection)) is not None:
                sock.close()  # pika may have not
            self.connection = None
        self._report(self._take_reason_to_drop() or problem_of(None, address, self._open))
        if loop is not None:
            self._guard(loop.close)

    def _beat(self, loop: Any) -> None:
        if self.beat is not None:  # else an idle connection would wake up for nothing
            self._guard(self.beat)
            loop.call_later(BEAT, lambda: self._beat(loop))

    def _connect(self, address: Address, loop: IOLoop) -> PikaConnection:
        connection = PikaConnection(
            parameters(address, self.settings, self._label()),
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_end,
            on_close_callback=self._on_end,
            custom_ioloop=loop,
        )
        connection.add_on_connection_blocked_callback(lambda *_: self._on_blocked(connection, True))
        connection.add_on_connection_unblocked_callback(lambda *_: self._on_blocked(connection, False))
        return connection

    def _report(self, problem: ConnectionProblem) -> None:
        if not self.is_stopping:
            self._note_failure(problem)
        self._guard(lambda: self.user.on_lost(self._attempts.as_reported(problem)))

    def _back_off(self) -> None:
        """Wait before the next round of addresses and check deadlines meanwhile; a message to send shortens it."""
        started_at = time.monotonic()
        until = started_at + self._attempts.pause()
        while not self.is_stopping and (left := until - time.monotonic()) > 0:
            self._check_deadlines()
            if self.beat is not None:
                self._guard(self.beat)
            if self._waker.wait(min(left, TICK)):
                self._woken = False
                until = min(until, started_at + self._attempts.shorter_pause())

    def _on_open(self, connection: PikaConnection) -> None:
        if self._is_too_old(connection.server_properties or {}, self._address):
            connection.close()
            return
        self._open = True
        self._opened(connection, self._address)

    def _on_end(self, connection: PikaConnection, error: BaseException) -> None:
        self._reason_to_drop = self._reason_to_drop or problem_of(
            error, self._address, self._open, connection.has_received
        )
        connection.ioloop.stop()

    def _on_waker(self, _fd: int, _events: int) -> None:
        self._waker.clear()
        self._on_wake()
        if self.is_retired:
            self._check_deadlines()
            if self.is_stopping:
                self._close()

    def _check_deadlines(self) -> bool:
        """Have the user check its deadlines; end if it waits for nothing and was retired. Check again while it is needed."""
        waits = super()._check_deadlines()
        if self.is_retired and not (waits or self.is_stopping or (self._needed is not None and self._needed())):
            self.is_stopping = True
            self._close()
        return waits or self._needed is not None

    def _close(self) -> None:
        connection = self.connection
        if connection is not None and not (connection.is_closing or connection.is_closed):
            connection.close()
            self._loop.call_later(CLOSE_TIMEOUT, self._loop.stop)
