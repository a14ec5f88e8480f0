"""
A raw socket client that speaks just enough AMQP 0-9-1 to consume, to acknowledge and to publish with confirms.

It is the yardstick: what one Python process can do with this broker when it decodes nothing and calls no code. It
expects what the bench sends: bodies of one frame, no heartbeats, an honest broker. Not an example of a client.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterable, Iterator
from urllib.parse import unquote, urlsplit

METHOD, BODY = 1, 3
FRAME_END = b"\xce"
FRAME_MAX = 131072
CHUNK = 1 << 18
MOMENT = 0.2

START, START_OK, TUNE, TUNE_OK, OPEN, OPEN_OK = (10, 10), (10, 11), (10, 30), (10, 31), (10, 40), (10, 41)
CHANNEL_OPEN, CHANNEL_OPEN_OK = (20, 10), (20, 11)
QOS, QOS_OK, CONSUME, CONSUME_OK = (60, 10), (60, 11), (60, 20), (60, 21)
ACK, NACK, RETURN = (60, 80), (60, 120), (60, 50)
SELECT, SELECT_OK = (85, 10), (85, 11)


def short(text: str) -> bytes:
    """Return an AMQP short string."""
    data = text.encode()
    return bytes([len(data)]) + data


def long(data: bytes) -> bytes:
    """Return an AMQP long string."""
    return struct.pack(">I", len(data)) + data


def method(channel: int, which: tuple[int, int], arguments: bytes = b"") -> bytes:
    """Return a method frame."""
    payload = struct.pack(">HH", *which) + arguments
    return struct.pack(">BHI", METHOD, channel, len(payload)) + payload + FRAME_END


class Confirms:
    """How many publishes are confirmed: all up to a tag, and singles beyond it."""

    def __init__(self) -> None:
        self._floor = 0
        self._singles: set[int] = set()

    @property
    def count(self) -> int:
        return self._floor + len(self._singles)

    def add(self, tag: int, multiple: int) -> None:
        """Note one ack of the broker."""
        if multiple:
            self._floor = max(self._floor, tag)
            self._singles = {single for single in self._singles if single > tag}
        else:
            self._singles.add(tag)


class Wire:
    """One connection with one channel."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "localhost", parts.port or 5672), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rest = b""
        user, password = unquote(parts.username or "guest"), unquote(parts.password or "guest")
        self._socket.sendall(b"AMQP\x00\x00\x09\x01")
        self._expect(START)
        login = f"\0{user}\0{password}".encode()
        self._call(0, START_OK, long(b"") + short("PLAIN") + long(login) + short("en_US"), TUNE)
        self._socket.sendall(method(0, TUNE_OK, struct.pack(">HIH", 1, FRAME_MAX, 0)))
        self._call(0, OPEN, short(unquote(parts.path[1:]) or "/") + short("") + b"\0", OPEN_OK)
        self._call(1, CHANNEL_OPEN, short(""), CHANNEL_OPEN_OK)

    def close(self) -> None:
        """Drop the connection."""
        self._socket.close()

    def consume(self, queue: str, prefetch: int, *, idle: float = 0.5, count: int = -1) -> tuple[int, int, int]:
        """
        Take messages until none comes for `idle` seconds or `count` have come; acknowledge what each read brought.

        Returns how many came, and when the first and the last came (nanoseconds since the epoch).

        Raises:
            ConnectionError: the broker has closed the connection.
        """
        self._call(1, QOS, struct.pack(">IHB", 0, prefetch, 0), QOS_OK)
        self._call(1, CONSUME, struct.pack(">H", 0) + short(queue) + short("") + b"\0" + long(b""), CONSUME_OK)
        head = struct.Struct(">BHI").unpack_from
        ack = struct.Struct(">BHIHHQBB").pack
        receive, send = self._receive, self._socket.sendall
        data, self._rest = self._rest, b""
        taken = first = last = 0
        while True:
            position, end, before = 0, len(data) - 7, taken
            while position <= end:
                kind, _, size = head(data, position)
                if position + size > end:
                    break
                position += size + 8
                if kind == BODY:
                    taken += 1
            if taken > before:
                send(ack(METHOD, 1, 13, *ACK, taken, 1, 0xCE))
                last = time.time_ns()
                first = first or last
            if taken == count:
                break
            self._socket.settimeout(idle if taken else 30)
            try:
                data = data[position:] + receive()
            except TimeoutError:
                break
        return taken, first, last

    def reads(self, queue: str) -> Iterator[bytes]:
        """
        Consume a queue without acks; yield what each read brought, and nothing (b"") if none did for a moment.

        Raises:
            ConnectionError: the broker has closed the connection.
        """
        no_ack = b"\2"
        self._call(1, CONSUME, struct.pack(">H", 0) + short(queue) + short("") + no_ack + long(b""), CONSUME_OK)
        self._socket.settimeout(MOMENT)
        yield self._rest
        while True:
            try:
                data = self._receive()
            except TimeoutError:
                data = b""
            yield data

    def publish(self, frames: Iterable[bytes], *, window: int = 2000, batch: int = 100) -> int:
        """
        Publish messages that are ready as frames, with confirms, `window` in flight; return how many.

        Raises:
            RuntimeError: the broker refused or returned one.
            ConnectionError: it has closed the connection.
        """
        self._call(1, SELECT, b"\0", SELECT_OK)
        sent = 0
        confirms = Confirms()
        gathered: list[bytes] = []
        for frame in frames:
            gathered.append(frame)
            sent += 1
            if len(gathered) == batch:
                self._socket.sendall(b"".join(gathered))
                gathered.clear()
                while sent - confirms.count > window:
                    self._read_confirms(confirms)
        self._socket.sendall(b"".join(gathered))
        while confirms.count < sent:
            self._read_confirms(confirms)
        return sent

    def _read_confirms(self, confirms: Confirms) -> None:
        data = self._rest + self._receive()
        position = 0
        while position + 7 <= len(data):
            size = struct.unpack_from(">I", data, position + 3)[0]
            if position + size + 8 > len(data):
                break
            which = struct.unpack_from(">HH", data, position + 7)
            if which != ACK:
                raise RuntimeError(f"instead of a confirm the broker sent {which}")
            tag, multiple = struct.unpack_from(">QB", data, position + 11)
            confirms.add(tag, multiple)
            position += size + 8
        self._rest = data[position:]

    def _receive(self) -> bytes:
        data = self._socket.recv(CHUNK)
        if not data:
            raise ConnectionError("the broker has closed the connection")
        return data

    def _call(self, channel: int, which: tuple[int, int], arguments: bytes, answer: tuple[int, int]) -> None:
        self._socket.sendall(method(channel, which, arguments))
        self._expect(answer)

    def _expect(self, answer: tuple[int, int]) -> None:
        while True:
            if len(self._rest) >= 7:
                size = struct.unpack_from(">I", self._rest, 3)[0]
                if len(self._rest) >= size + 8:
                    break
            self._rest += self._receive()
        got = struct.unpack_from(">HH", self._rest, 7)
        if got != answer:
            raise RuntimeError(f"expected {answer}, got {got}: {self._rest[:200]!r}")
        self._rest = self._rest[size + 8 :]
