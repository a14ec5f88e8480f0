"""
aio-pika's connection with our codec: the only module that uses aiormq's `transport_factory`, bytes in and bytes out.

aio-pika connects, logs in, and sends heartbeats on channel 0. All other channels are ours: it never sees their frames, nor that
the broker is blocked. Importing this module raises `ImportError` unless the installed aiormq is one of the versions that the
contract tests were run with.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from importlib.metadata import version
from typing import Any
from urllib.parse import quote

import aio_pika
import pamqp.frame
from aiormq.connection import TransportFactory
from pamqp import commands
from yarl import URL

from amqpworker.broker.address import Address
from amqpworker.broker.aio_channel import AioChannel
from amqpworker.broker.amqp.decode import FrameError, RawFrame, StreamDecoder
from amqpworker.broker.channel_numbers import ChannelNumbers
from amqpworker.broker.connection import ChannelListener, ConnectionEnded, NoChannelLeft, OnClosed, dispatch
from amqpworker.broker.connection_causes import LoginRefused
from amqpworker.broker.labels import client_properties
from amqpworker.broker.library_version import require_version
from amqpworker.broker.login import PLAIN, mechanism_of
from amqpworker.broker.socket_state import has_unread, unsent_bytes
from amqpworker.broker.tls import tls_context
from amqpworker.errors import ConfigError
from amqpworker.log.logger import get_logger
from amqpworker.settings import Settings

log = get_logger(__name__)

# The versions of aiormq that the contract tests were run with: from the first one up to, but not including, the second.
OLDEST_AIORMQ = (7, 2, 4)  # aio-pika 10.2 requires it
FIRST_UNKNOWN_AIORMQ = (7, 3)

HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
# Seconds between the heartbeats that aio-pika is passed while other frames arrive.
FEED_HEARTBEAT_EVERY = 1.0
CLOSE_TIMEOUT = 2.0
CUT_TIMEOUT = 1.0
CHANNEL_NUMBER = slice(1, 3)

ENCODED_SLASH = (
    "aio-pika cannot log in to the virtual host {virtual_host!r}, whose name contains %2F. If it is an encoded slash, encode it "
    "once only in the URL; else do not enter the app (`async with`), so that the thread sends."
)


def check_aiormq_version(installed: str) -> None:
    """Raise ImportError unless this version of aiormq has the transport factory that `AioConnection` relies on."""
    require_version("aiormq", installed, OLDEST_AIORMQ, FIRST_UNKNOWN_AIORMQ)


check_aiormq_version(version("aiormq"))


class AioConnection(asyncio.StreamReaderProtocol):
    """One connection, from its attempt to its end; `on_lost` is called once when it has ended, with an error or None."""

    def __init__(
        self,
        address: Address,
        settings: Settings,
        on_lost: Callable[[BaseException | None], None],
        on_writable: Callable[[], None],
        on_blocked: Callable[[bool], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = asyncio.StreamReader(loop=self._loop)
        super().__init__(self._reader, loop=self._loop)
        self.address = address
        self._settings = settings
        self._on_lost = on_lost
        self._on_writable = on_writable
        self._on_blocked = on_blocked
        self._decoder = StreamDecoder()
        self._transport: asyncio.Transport | None = None
        self._aio: aio_pika.Connection | None = None
        self._channels: dict[int, AioChannel] = {}
        self.listeners: dict[int, ChannelListener] = {}
        """By channel number."""
        self._numbers = ChannelNumbers()
        self._last_fed_at = 0.0
        self._is_logged_in = self._is_closing = self._is_lost = self._is_paused = False
        self._failure: FrameError | None = None
        self.frame_max = 0
        """The largest frame that the broker accepts, in bytes; 0 means no limit."""
        self._channel_max = 0
        self.is_blocked = False
        self.bytes_received = self.bytes_sent = 0
        self.close_by_broker: tuple[int, str] | None = None
        """The code and text with which the broker closed the connection."""

    # ---- from its attempt to its end --------------------------------------------------------------------------------

    async def connect(self, label: str) -> None:
        """
        Connect and log in, with a label for the broker's lists, within `connect_timeout` seconds.

        Raises what aio-pika or the socket raises, ConfigError for a virtual host that aio-pika cannot name.
        """
        settings = self._settings
        if mechanism_of(self.address, settings) == PLAIN and not (self.address.user and self.address.password):
            raise LoginRefused  # as the broker does; aiormq would log in as `guest`
        if "%2F" in self.address.virtual_host:
            raise ConfigError(ENCODED_SLASH.format(virtual_host=self.address.virtual_host))
        properties = client_properties(label, f"aio-pika {aio_pika.__version__}")
        self._aio = _Connection(_url(self.address, settings), client_properties=properties)
        self._aio.kwargs["transport_factory"] = _Factory(self)
        try:
            await self._within(self._aio.connect(), settings.connect_timeout)
        except Exception:
            if self._failure is not None:
                raise self._failure from None
            raise
        self.frame_max, self._channel_max = int(self._tune.frame_max or 0), int(self._tune.channel_max or 0)
        self._is_logged_in = True

    async def open_transport(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect the socket, with TLS if the address has it."""
        address = self.address
        context = tls_context(self._settings) if address.tls else None
        transport, _ = await self._loop.create_connection(lambda: self, address.host, address.port, ssl=context)
        self._transport = transport
        return self._reader, asyncio.StreamWriter(transport, self, self._reader, self._loop)

    async def close(self) -> None:
        """Close the connection; one that does not respond within a bound is cut."""
        self._is_closing = True
        if self._loop.is_closed():
            return  # the socket is closed when its transport is deleted
        try:
            if self._aio is not None:
                with suppress(Exception):  # whatever it is, the connection is cut
                    await self._within(self._aio.close(), CLOSE_TIMEOUT)
        finally:
            self.abort()

    async def _within(self, coroutine: Coroutine[Any, Any, None], timeout: float) -> None:
        """
        Await something of aio-pika for at most `timeout` seconds, after which the connection is cut.

        aio-pika's own timeouts, and a cancel, first wait for its writer to close, which may never happen: so the transport is
        aborted before.
        """
        task = self._loop.create_task(coroutine)
        try:
            done, _ = await asyncio.wait([task], timeout=timeout)
        except asyncio.CancelledError:
            await self._cut(task)
            raise
        if not done:
            await self._cut(task)
            raise TimeoutError
        task.result()

    async def _cut(self, task: asyncio.Task[None]) -> None:
        self.abort()
        task.cancel()
        await asyncio.wait([task], timeout=CUT_TIMEOUT)
        if task.done() and not task.cancelled():
            task.exception()  # else asyncio would complain that it was not read

    def forget(self) -> None:
        """In a forked child: drop the parent's connection without closing it; the descriptor stays valid, and leads nowhere."""
        sock = self._socket
        if sock is not None and sock.fileno() >= 0:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, sock.fileno())
            os.close(nowhere)

    def abort(self) -> None:
        """Cut the connection."""
        self._is_closing = True
        if self._transport is not None:
            self._transport.abort()

    # ---- state ------------------------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent on it."""
        return self._is_logged_in and not (self._is_closing or self._is_lost)

    @property
    def accepts_messages(self) -> bool:
        """Whether publications can be written now."""
        return self.is_open and not self.is_blocked and not self._is_paused

    @property
    def has_unread(self) -> bool:
        """Whether the broker has sent something that was not read yet: perhaps its close."""
        return has_unread(self._socket)

    @property
    def unsent(self) -> int:
        """How many bytes were written that the other host has not acknowledged yet."""
        buffered = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return unsent_bytes(self._socket, buffered)

    @property
    def _socket(self) -> Any:
        return None if self._transport is None else self._transport.get_extra_info("socket")

    @property
    def server_properties(self) -> dict[str, Any]:
        """What the broker reports about itself."""
        return dict(self._aiormq.server_properties or {})

    @property
    def _tune(self) -> Any:
        return self._aiormq.connection_tune

    @property
    def _aiormq(self) -> Any:
        assert self._aio is not None
        assert self._aio.transport is not None
        return self._aio.transport.connection

    # ---- channels ---------------------------------------------------------------------------------------------------

    def open_channel(
        self, listener: ChannelListener, on_opened: Callable[[AioChannel], None], on_closed: OnClosed
    ) -> None:
        """Open a channel; `on_opened` is called then, `on_closed` when it is closed or cannot be opened."""
        try:
            number = self._numbers.take(self._channel_max)
        except NoChannelLeft as error:
            on_closed(error)
            return
        self._channels[number] = AioChannel(self, number, listener, on_opened, on_closed)

    def forget_channel(self, channel: AioChannel) -> None:
        """Free the number of a channel that is closed."""
        self._channels.pop(channel.number, None)
        self.listeners.pop(channel.number, None)
        self._numbers.release(channel.number)

    def write(self, data: bytes) -> None:
        """Write marshalled frames in one piece, between those of aio-pika, which writes whole frames too."""
        if self._transport is not None and not (self._is_lost or self._transport.is_closing()):
            self.bytes_sent += len(data)
            self._transport.write(data)

    # ---- what arrives -----------------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Decode what arrived; aio-pika reads the frames of channel 0."""
        self.bytes_received += len(data)
        try:
            events = self._decoder.feed(data)
        except FrameError as error:
            if self.is_open:
                log.error("stream_corrupt", reason=str(error))
            self._failure = error  # before it is open: it is not RabbitMQ
            self.abort()
            return
        dispatch(events, self.listeners, self._on_frame)
        self._feed_heartbeat()

    def _on_frame(self, raw: RawFrame) -> None:
        number = int.from_bytes(raw[CHANNEL_NUMBER])
        if number:
            if channel := self._channels.get(number):
                channel.on_frame(raw)
            return
        _, _, frame = pamqp.frame.unmarshal(raw)
        match frame:
            case commands.Connection.Blocked():
                self._on_blocked(True)
            case commands.Connection.Unblocked():
                self._on_blocked(False)
            case _:
                if isinstance(frame, commands.Connection.Close):
                    self.close_by_broker = (frame.reply_code or 0, frame.reply_text)
                    self._is_closing = True
                    # aiormq answers, but first waits for what was written before, perhaps for ever.
                    self._loop.call_later(CLOSE_TIMEOUT, self.abort)
                self._last_fed_at = self._loop.time()
                self._reader.feed_data(raw)

    def _feed_heartbeat(self) -> None:
        """Pass aio-pika a heartbeat of ours: it does not see the frames of our channels, and would take the broker for dead."""
        now = self._loop.time()
        if self.is_open and now - self._last_fed_at > FEED_HEARTBEAT_EVERY:
            self._last_fed_at = now
            self._reader.feed_data(HEARTBEAT)

    def eof_received(self) -> bool:
        """Cut the connection: aiormq would wait until all that was written is sent, perhaps for ever."""
        super().eof_received()
        self._loop.call_soon(self.abort)
        return False

    def pause_writing(self) -> None:
        """Write no more messages until `resume_writing`: the socket takes no more."""
        self._is_paused = True
        super().pause_writing()

    def resume_writing(self) -> None:
        """Write messages again: the socket takes more."""
        self._is_paused = False
        super().resume_writing()
        self._on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """End all channels, and report the end."""
        self._is_lost = True
        with suppress(Exception):
            super().connection_lost(exc)
        channels, self._channels = self._channels, {}
        self.listeners.clear()
        for channel in channels.values():
            channel.end(ConnectionEnded(str(exc or "the connection was closed")))
        self._on_lost(exc)


class _Connection(aio_pika.Connection):
    """aio-pika's connection, without its attempt to close itself when it is collected: it is always closed before."""

    def __del__(self) -> None:
        """Do nothing."""


class _Factory(TransportFactory):
    """Gives aiormq the reader and the writer of our transport."""

    def __init__(self, connection: AioConnection) -> None:
        self._connection = connection

    async def create(self, url: URL, **_: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:  # noqa: ARG002
        """Connect the socket."""
        return await self._connection.open_transport()


def _url(address: Address, settings: Settings) -> URL:
    """Return the URL from which aiormq reads login, virtual host and heartbeat."""
    user, password = quote(address.user, safe=""), quote(address.password, safe="")
    host = f"[{address.host}]" if ":" in address.host else address.host
    query = f"heartbeat={settings.heartbeat}&auth={mechanism_of(address, settings).lower()}"
    path = quote(address.virtual_host, safe="")
    scheme = "amqps" if address.tls else "amqp"
    return URL(f"{scheme}://{user}:{password}@{host}:{address.port}/{path}?{query}", encoded=True)
