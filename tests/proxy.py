"""A TCP proxy between a client and the broker that fails in the ways of networks: swallows, stops, resets, is slow."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Literal, Self, get_args
from urllib.parse import urlsplit, urlunsplit

Direction = Literal["to_broker", "to_client"]
RESET = struct.pack("ii", 1, 0)  # SO_LINGER with no time: close() sends RST


class Proxy:
    """
    Passes bytes on to `url`'s broker; in a `with` block it listens, and its threads end with it.

    `accepted` counts the clients that came, `ended` those that went.
    """

    def __init__(self, url: str, port: int = 0) -> None:
        split = urlsplit(url)
        self._target = (split.hostname or "", split.port or 0)
        self._listener = socket.create_server(("127.0.0.1", port), backlog=100)
        self._host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.url = urlunsplit(split._replace(netloc=f"{split.username}:{split.password}@{self._host}"))
        self._swallowed: set[Direction] = set()
        self._left: dict[Direction, int] = {}
        self._rates: dict[Direction, float] = {}
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self.accepted = self.ended = 0
        self.passed: dict[Direction, int] = {"to_broker": 0, "to_client": 0}
        self._closed = False

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.reset()

    def swallow(self, direction: Direction) -> None:
        """Take what comes in this direction and let none of it out, from now on."""
        if direction not in get_args(Direction):
            raise ValueError(f"not a direction: {direction!r}")
        self._swallowed.add(direction)

    def limit(self, direction: Direction, rate: float) -> None:
        """Pass on only `rate` bytes per second in this direction, from now on."""
        self._rates[direction] = rate

    def heal(self) -> None:
        """Pass everything on again; what was swallowed is gone."""
        self._swallowed.clear()
        self._rates.clear()
        self._left.clear()

    def reset(self) -> None:
        """Reset all connections (RST)."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for one in pair:
                with suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RD)  # wakes the thread that reads; no FIN, so that RST comes first
                one.close()

    def reset_after(self, count: int, direction: Direction) -> None:
        """Pass so many more bytes on in this direction, then reset: in mid-frame, if so chosen."""
        self._left[direction] = count

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(self._target, timeout=5)
            except OSError:
                client.close()
                continue
            broker.settimeout(None)
            self.accepted += 1
            with self._lock:
                self._pairs.append((client, broker))
            ways: tuple[tuple[socket.socket, socket.socket, Direction], ...] = (
                (client, broker, "to_broker"),
                (broker, client, "to_client"),
            )
            for way in ways:
                threading.Thread(target=self._pump, args=way, name=f"proxy-{way[2]}", daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, direction: Direction) -> None:
        try:
            while data := source.recv(4096 if direction in self._rates else 65536):
                if rate := self._rates.get(direction):
                    time.sleep(len(data) / rate)
                if direction in self._swallowed:
                    continue
                left = self._left.get(direction)
                if left is not None and len(data) >= left:
                    del self._left[direction]
                    target.sendall(data[:left])
                    self.reset()
                    return
                if left is not None:
                    self._left[direction] = left - len(data)
                self.passed[direction] += len(data)  # before any party can act on it
                target.sendall(data)
        except OSError:
            pass
        if direction == "to_broker":
            self.ended += 1
        if direction not in self._swallowed:
            with suppress(OSError):
                target.shutdown(socket.SHUT_WR)
