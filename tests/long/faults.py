"""
What is done to a system under load: a broker, workers and the network are killed, frozen and cut off, and healed.

Each fault is written into the ledger when it begins and when it is over: a message that runs twice must have lived then.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.acceptance.scene import Scene
from tests.acceptance.service.ledger import Ledger
from tests.conftest import quicken
from tests.nodes import Node
from tests.proxy import Direction, Proxy

SHORT = (1.0, 2.5)
LONG = (2.0, 25.0)
WAYS: tuple[Direction, ...] = ("to_broker", "to_client")
MOST_BYTES = 200_000
WORKER = "amqpworker.worker.process"


@dataclass
class Faults:
    """The faults that are known, each a method; `seconds` is the range of those that last."""

    scene: Scene
    node: Node
    proxies: tuple[Proxy, ...]
    seconds: tuple[float, float]
    chosen: random.Random
    counts: dict[str, int] = field(default_factory=dict)

    def all(self) -> list[Callable[[], None]]:
        """Return one of each, in an order of chance."""
        found = [
            self.broker_killed,
            self.broker_frozen,
            self.worker_killed,
            self.worker_frozen,
            self.connections_reset,
            self.connections_cut_in_mid_frame,
            self.network_silent,
        ]
        self.chosen.shuffle(found)
        return found

    def broker_killed(self) -> None:
        """Kill the broker and start it again with what it has on the disk."""
        with self.noted("broker killed"):
            self.node.kill()
            self.node.start()
        quicken(self.node)

    def broker_frozen(self) -> None:
        """Freeze the broker."""
        with self.noted("broker frozen"), frozen(self.node.pid):
            self.last()

    def worker_killed(self) -> None:
        """Kill one of the worker processes; its supervisor starts another."""
        pid = self.chosen.choice(self.workers())
        with self.noted("worker killed"):
            Ledger(self.scene.ledger.path, pid).write("killed", point="from outside")
            os.kill(pid, signal.SIGKILL)

    def worker_frozen(self) -> None:
        """Freeze one of the worker processes: if for long, the broker delivers its messages to another."""
        with self.noted("worker frozen"), frozen(self.chosen.choice(self.workers())):
            self.last()

    def connections_reset(self) -> None:
        """Reset all connections."""
        with self.noted("connections reset"):
            for proxy in self.proxies:
                proxy.reset()

    def connections_cut_in_mid_frame(self) -> None:
        """Reset all connections of one side after some more bytes."""
        proxy = self.chosen.choice(self.proxies)
        with self.noted("connections cut in mid-frame"):
            accepted = proxy.accepted
            proxy.reset_after(self.chosen.randint(1, MOST_BYTES), self.chosen.choice(WAYS))
            self.scene.wait_until(lambda: proxy.accepted > accepted, 60, "a new connection")
            proxy.heal()

    def network_silent(self) -> None:
        """Swallow what goes in one direction, or in both, between the broker and one side; then reset what is spoilt."""
        proxy = self.chosen.choice(self.proxies)
        ways = self.chosen.choice([WAYS, WAYS[:1], WAYS[1:]])
        with self.noted("network silent"):
            for way in ways:
                proxy.swallow(way)
            try:
                self.last()
            finally:
                proxy.heal()
                proxy.reset()

    def workers(self) -> list[int]:
        """Return the worker processes that live."""
        return sorted(pid for pid, command in self.scene.living().items() if WORKER in command)

    def last(self) -> None:
        """Let a fault last, as long as chance has it."""
        time.sleep(self.chosen.uniform(*self.seconds))

    @contextmanager
    def noted(self, what: str) -> Iterator[None]:
        """Write down when a fault begins and when it is over."""
        self.counts[what] = self.counts.get(what, 0) + 1
        self.scene.fault(what)
        try:
            yield
        finally:
            self.scene.fault(f"{what}: over")


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Stop a process for the time of a block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
