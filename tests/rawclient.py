"""
A bare AMQP client that puts any bytes on the wire: properties that no library would send.

It speaks just enough of AMQP 0-9-1 to publish with confirms; the broker does not look into properties, and delivers
them as they are.
"""

from __future__ import annotations

import socket
import struct
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

HEADERS, TYPE, CONTENT_TYPE, CLUSTER_ID = 1 << 13, 1 << 5, 1 << 15, 1 << 2
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
END = b"\xce"

START, START_OK, TUNE, TUNE_OK = (10, 10), (10, 11), (10, 30), (10, 31)
OPEN, OPEN_OK, CLOSE, CLOSE_OK = (10, 40), (10, 41), (10, 50), (10, 51)
CHANNEL_OPEN, CHANNEL_OPEN_OK, CHANNEL_CLOSE = (20, 10), (20, 11), (20, 40)
SELECT, SELECT_OK, PUBLISH, ACK, NACK = (85, 10), (85, 11), (60, 40), (60, 80), (60, 120)


def short(text: bytes) -> bytes:
    return bytes((len(text),)) + text


def long(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def table(*entries: tuple[bytes, bytes]) -> bytes:
    """Return a field table of names and values that are encoded already, type letter first."""
    return long(b"".join(short(name) + value for name, value in entries))


def properties(
    kind: bytes | None, headers: bytes | None = None, content_type: bytes | None = b"application/json"
) -> bytes:
    """Return flags and values: `type`, `headers` and `content_type` as these bytes."""
    flags, values = 0, b""
    if content_type is not None:
        flags, values = flags | CONTENT_TYPE, values + short(content_type)
    if headers is not None:
        flags, values = flags | HEADERS, values + headers
    if kind is not None:
        flags, values = flags | TYPE, values + short(kind)
    return struct.pack(">H", flags) + values


def with_cluster_id(values: bytes, cluster_id: bytes) -> bytes:
    """Return the same properties with the one that is reserved, the last of all."""
    (flags,) = struct.unpack(">H", values[:2])
    return struct.pack(">H", flags | CLUSTER_ID) + values[2:] + short(cluster_id)


class RawClient:
    """A connection with one channel in confirm mode."""

    def __init__(self, url: str) -> None:
        place = urlsplit(url)
        self._socket = socket.create_connection((place.hostname or "", place.port or 5672), timeout=20)
        self._stream = self._socket.makefile("rb")
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._wait_for(START)
        login = f"\0{unquote(place.username or '')}\0{unquote(place.password or '')}".encode()
        self._method(0, START_OK, table() + short(b"PLAIN") + long(login) + short(b"en_US"))
        tuned = self._wait_for(TUNE)
        self._method(0, TUNE_OK, tuned[:6] + b"\0\0")
        self.frame_max = struct.unpack(">I", tuned[2:6])[0]
        self._method(0, OPEN, short(unquote(place.path[1:]).encode()) + b"\0\0")
        self._wait_for(OPEN_OK)
        self._method(1, CHANNEL_OPEN, b"\0")
        self._wait_for(CHANNEL_OPEN_OK)
        self._method(1, SELECT, b"\0")
        self._wait_for(SELECT_OK)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            self._method(0, CLOSE, struct.pack(">H", 200) + short(b"done") + b"\0\0\0\0")
        finally:
            self._stream.close()
            self._socket.close()

    def publish(self, exchange: str, routing_key: str, body: bytes, values: bytes) -> None:
        """Publish a body with these bytes as properties, and wait for the confirm."""
        self._method(1, PUBLISH, b"\0\0" + short(exchange.encode()) + short(routing_key.encode()) + b"\0")
        self._frame(HEADER, 1, struct.pack(">HHQ", 60, 0, len(body)) + values)
        most = self.frame_max - 8
        for start in range(0, len(body), most):
            self._frame(BODY, 1, body[start : start + most])
        self._wait_for(ACK)

    def _frame(self, kind: int, channel: int, payload: bytes) -> None:
        self._socket.sendall(struct.pack(">BHI", kind, channel, len(payload)) + payload + END)

    def _method(self, channel: int, number: tuple[int, int], arguments: bytes) -> None:
        self._frame(METHOD, channel, struct.pack(">HH", *number) + arguments)

    def _wait_for(self, wanted: tuple[int, int]) -> bytes:
        """Return the arguments of the next method, which must be this one."""
        while True:
            kind, _, size = struct.unpack(">BHI", self._read(7))
            payload = self._read(size)
            assert self._read(1) == END
            if kind == HEARTBEAT:
                continue
            number = struct.unpack(">HH", payload[:4])
            assert number == wanted, f"the broker answered {number}: {payload[4:]!r}"
            return payload[4:]

    def _read(self, size: int) -> bytes:
        data = self._stream.read(size)
        assert len(data) == size, "the broker closed the connection"
        return data
