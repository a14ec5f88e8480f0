"""
Ends this worker process by SIGKILL at a step of the settle path, named in KILL_AT; without that nothing happens here.

A step is a function of the package, wrapped; the package itself has no hooks for it. The folder KILLS has one file for
each kill that is still to happen: the process that removes one writes down that it dies, and dies.
"""

from __future__ import annotations

import functools
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ledger import Ledger

from amqpworker.broker.pika_channel import PikaChannel
from amqpworker.broker.publish_channel import PublishChannel
from amqpworker.hooks import Settled
from amqpworker.model.message import Publication
from amqpworker.results.sqlite import SqliteStore
from amqpworker.worker.copies import Copy, CopyPublisher
from amqpworker.worker.executor import TaskExecutor
from amqpworker.worker.settle import Settler

AT_LAST = int(os.environ.get("KILL_BY", "8"))  # a process dies when it is there for the n-th time, n up to this
HOLD = 0.05  # other threads continue for this long: what they do too early, such as an acknowledgement, gets out

Hit = Callable[[], None]


class Trap:
    """Counts how often its step is reached."""

    def __init__(self, point: str, kills: Path, ledger: Ledger) -> None:
        self.point = point
        self._kills = kills
        self._ledger = ledger
        self._left = random.randint(1, AT_LAST)
        self._lock = threading.Lock()

    def hit(self) -> None:
        """Die, if it is time and a kill is left."""
        with self._lock:  # one ticket for each process, however many of its threads are there
            self._left -= 1
            if self._left <= 0 and self._take_ticket():
                time.sleep(HOLD)
                self._ledger.write("killed", point=self.point)
                os.kill(os.getpid(), signal.SIGKILL)
                signal.pause()

    def _take_ticket(self) -> bool:
        for ticket in self._kills.iterdir():
            with suppress(FileNotFoundError):  # another process has it
                ticket.unlink()
                return True
        return False


armed: list[Trap] = []


def arm(ledger: Ledger) -> None:
    """Set the trap that the environment asks for."""
    point = os.environ.get("KILL_AT")
    if point is None:
        return
    trap = Trap(point, Path(os.environ["KILLS"]), ledger)
    armed.append(trap)
    POINTS[point](trap.hit)


def reached(point: str) -> None:
    """Die, if the trap is set here; for steps within a task."""
    for trap in armed:
        if trap.point == point:
            trap.hit()


def before(owner: type, name: str, hit: Hit, applies: Callable[..., bool] = lambda *_: True) -> None:
    """Have `hit` called before a method, where it `applies` to what the method is called with."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if applies(*args):
            hit()
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)


def after(owner: type, name: str, hit: Hit, applies: Callable[..., bool] = lambda *_: True) -> None:
    """Have `hit` called after a method, where it `applied` to what the method was called with."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        applied = applies(*args)
        result = original(*args, **kwargs)
        if applied:
            hit()
        return result

    setattr(owner, name, wrapped)


def goes_to(publication: Publication, part: str) -> bool:
    """Return whether a publication is a copy on its way there: `delay` for a retry, `dead` for a letter."""
    return publication.exchange.startswith(f"amqpworker.{part}")


def written(part: str) -> Callable[[Hit], None]:
    """Return the step at which such a copy has just been written to the socket."""

    def any_copy(channel: PublishChannel, frames: list[bytes]) -> bool:
        just_added = list(channel._in_flight.values())[-len(frames) :]
        return any(goes_to(one.publication, part) for one in just_added)

    return lambda hit: after(PublishChannel, "write", hit, any_copy)


def unheard(part: str) -> Callable[[Hit], None]:
    """Return the step at which the broker's confirm of such a copy has arrived, and was not handled."""

    def any_copy(channel: PublishChannel, *_: Any) -> bool:
        in_flight = channel._in_flight.values()
        return any(goes_to(one.publication, part) for one in in_flight)

    return lambda hit: before(PublishChannel, "on_confirm", hit, any_copy)


def confirmed(part: str) -> Callable[[Hit], None]:
    """Return the step at which such a copy is known to be confirmed, and its original not acknowledged."""

    def set_trap(hit: Hit) -> None:
        original = CopyPublisher.publish

        def publish(self: CopyPublisher, copy: Copy) -> None:
            def trapped() -> None:
                if goes_to(copy.publication, part):
                    hit()
                copy.on_confirmed()

            original(self, replace(copy, on_confirmed=trapped))

        setattr(CopyPublisher, "publish", publish)  # noqa: B010 - so that a test can put it back, as in `before`

    return set_trap


def is_copy(part: str) -> Callable[..., bool]:
    """Return the question whether what `CopyPublisher.publish` is called with goes there."""
    return lambda _copies, copy: goes_to(copy.publication, part)


def has_settlements(channel: PikaChannel) -> bool:
    return bool(channel._settlements)


def was_a_call(_settler: Settler, settled: Settled) -> bool:
    return bool(settled.delivery.properties.reply_to)


POINTS: dict[str, Callable[[Hit], None]] = {
    "before the run": lambda hit: before(TaskExecutor, "admit", hit),
    "in the run": lambda _: None,
    "after the run": lambda hit: before(Settler, "settle", hit),
    "result not stored": lambda hit: before(SqliteStore, "put", hit),
    "result stored": lambda hit: after(SqliteStore, "put", hit),
    "reply sent": lambda hit: before(Settler, "_ack", hit, was_a_call),
    "copy not sent": lambda hit: before(CopyPublisher, "publish", hit, is_copy("delay")),
    "copy written": written("delay"),
    "copy unheard": unheard("delay"),
    "copy confirmed": confirmed("delay"),
    "letter not sent": lambda hit: before(CopyPublisher, "publish", hit, is_copy("dead")),
    "letter written": written("dead"),
    "letter unheard": unheard("dead"),
    "letter confirmed": confirmed("dead"),
    "before the ack": lambda hit: before(PikaChannel, "flush", hit, has_settlements),
    "after the ack": lambda hit: after(PikaChannel, "flush", hit, has_settlements),
}
