"""
When the ticks of schedules arrive: a raw consumer without acks, in a thread, that notes the time of each read.

Times are seconds since the epoch, because those of ticks are.
"""

from __future__ import annotations

import re
import threading
import time
from datetime import datetime
from types import TracebackType
from typing import NamedTuple, Self

from bench.load import QUEUE
from bench.watched import LOOK
from bench.wire import Wire

NOMINAL = re.compile(rb"\x0aaw-nominalS\x00\x00\x00\x18(.{24})")
"""The header of a tick, as it is on the wire: its name, and a text of 24 bytes."""
LONGEST = 64


class Tick(NamedTuple):
    """When a tick was due, and when it arrived."""

    nominal: float
    arrived: float


class Arrivals:
    """All that arrives in the bench's queue in the time of a `with` block; it connects again if the broker was away."""

    def __init__(self, url: str) -> None:
        self.connected: list[float] = []
        """When the broker had opened a connection and a channel."""
        self.ticks: list[Tick] = []
        """Those that have arrived, in that order."""
        self._url = url
        self._rest = b""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="arrivals")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def first_after(self, moment: float) -> float | None:
        """Return when the first tick after a moment has arrived, None if none has."""
        return next((tick.arrived for tick in self.ticks if tick.arrived > moment), None)

    def add(self, arrived: float, read: bytes) -> None:
        """Add the ticks in what a read brought at this time."""
        data = self._rest + read
        end = 0
        for match in NOMINAL.finditer(data):
            end = match.end()
            self.ticks.append(Tick(datetime.fromisoformat(match[1].decode()).timestamp(), arrived))
        self._rest = data[max(end, len(data) - LONGEST) :]  # the beginning of a header may be in it

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._consume()
            except (OSError, RuntimeError):  # the broker is away, or not ready
                time.sleep(LOOK)

    def _consume(self) -> None:
        wire = Wire(self._url)
        self.connected.append(time.time())
        try:
            for data in wire.reads(QUEUE):
                self.add(time.time(), data)
                if self._over.is_set():
                    return
        finally:
            wire.close()
