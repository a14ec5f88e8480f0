"""What every measure is given: the node, the scale, servers for results, and a place of its own for each measure."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.broker import Broker
from bench.stores import Servers


@dataclass(frozen=True)
class Slot:
    """A virtual host and a folder of its own."""

    url: str
    folder: Path


@dataclass(frozen=True)
class Bench:
    """One run of the bench."""

    broker: Broker
    scale: float = 1.0
    servers: Servers = field(default_factory=Servers)

    def count(self, full: int, least: int = 256) -> int:
        """Return a number of messages at this run's scale."""
        return max(int(full * self.scale), min(full, least))

    @contextmanager
    def place(self) -> Iterator[Slot]:
        """Make a place, and remove it with all that is in it."""
        self.broker.wait_until_idle()  # what the last one left behind is deleted by then
        with self.broker.vhost() as url, tempfile.TemporaryDirectory(prefix="amqpworker-bench-") as folder:
            yield Slot(url, Path(folder))
