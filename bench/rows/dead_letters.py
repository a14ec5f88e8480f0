"""A hundred thousand dead letters: how long a list takes, how fast they are replayed, and what a kill in the middle doubles."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing

from amqpworker.client.letter_mover import BATCH
from amqpworker.routing.topology import dead_queue

from bench import letters
from bench.commands import LOOK, done, started
from bench.context import Bench, Slot
from bench.load import QUEUE
from bench.places import SideFailed
from bench.pool import QueueView
from bench.row import Figures, Limit, Measure, Row
from bench.rows import OPERATING
from bench.wire import Wire

COUNT = 100_000
FEW = 10_000
LEAST = 2 * FEW
KILLS = 4
PATIENCE = 30.0
STABLE = 0.5
AT_ANY_MOMENT = 0.1
"""Seconds: the broker reports counts at certain moments of a batch only, so a kill waits a random time up to this."""
MIB = 1 << 20
FLAT = 8
KILLED = f"amqpworker, killed {KILLS} times"
DOUBLED, LOST = "doubled by one kill, most", "lost"
REPLAY = ("dead", "replay", "--all", "--yes")
DEAD = dead_queue(QUEUE)
_ID = re.compile(rb"letter-\d{7}")
_ID_LENGTH = 14


def ours(bench: Bench) -> Figures:
    """List some letters, then ten times as many, and replay all."""
    few, count = FEW, bench.count(COUNT, LEAST)
    with bench.place() as place:
        letters.publish(place.url, 0, few)
        bench.broker.wait_until_idle()
        small = done(place, "dead", "list")
        letters.publish(place.url, few, count - few)
        bench.broker.wait_until_idle()
        listed = done(place, "dead", "list")
        if f"{count} dead letters" not in (shown := listed.output.read_text()):
            raise SideFailed(f"not all {count} letters are listed:\n{shown}")
        bench.broker.wait_until_idle()
        replayed = done(place, *REPLAY)
        with QueueView(place.url) as work, QueueView(place.url, DEAD) as dead:
            _wait(lambda: (work.ready(), dead.ready()) == (count, 0), "all letters are where they died")
    return {
        "s to list": listed.seconds,
        "letters/s": count / replayed.seconds,
        "MiB of list": listed.peak / MIB,
        "MiB more of list": (listed.peak - small.peak) / MIB,
        "MiB of replay": replayed.peak / MIB,
    }


def killed(bench: Bench) -> Figures:
    """Kill replays in the middle, finish with one that is not killed, and count each id."""
    count = bench.count(COUNT, LEAST)
    with bench.place() as place, closing(_Places(place, count)) as places:
        doubled = []
        for number in range(1, KILLS + 1):
            before = places.surplus()
            _kill(place, places, number * count // (KILLS + 1))
            doubled.append(places.surplus() - before)
        done(place, *REPLAY)
        ids = _ids(place.url, count + places.surplus())
    sent = {letters.id_of(index) for index in range(count)}
    return {
        LOST: len(sent - ids.keys()),
        DOUBLED: max(doubled),
        "doubled": sum(copies - 1 for copies in ids.values()),
        "other ids": len(ids.keys() - sent),
    }


class _Places:
    """Where letters are: in the queue of dead letters, and where they are replayed to."""

    def __init__(self, place: Slot, count: int) -> None:
        letters.publish(place.url, 0, count)
        self._count = count
        self._work, self._dead = QueueView(place.url), QueueView(place.url, DEAD)

    def replayed(self) -> int:
        """Return how many have been replayed by now."""
        return self._work.ready()

    def surplus(self) -> int:
        """Return how many more messages than letters there are, once no one reads the queue and nothing moves any more."""
        _wait(lambda: not self._dead.consumers(), "no one reads the letters")
        found = (-1, -1)
        while (now := (self._work.ready(), self._dead.ready())) != found:
            found = now
            time.sleep(STABLE)
        return sum(found) - self._count

    def close(self) -> None:
        """End the connections."""
        for view in (self._work, self._dead):
            view.__exit__(None, None, None)


def _kill(place: Slot, places: _Places, after: int) -> None:
    """Start a replay, and kill it once as many as `after` are replayed."""
    with started(place, *REPLAY) as command:
        while places.replayed() < after:
            if not command.is_running:
                raise SideFailed(f"a replay ended before it was killed: {command.errors}")
            time.sleep(LOOK)
        time.sleep(random.uniform(0, AT_ANY_MOMENT))
        command.kill()


def _wait(met: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not met():
        if time.monotonic() > deadline:
            raise SideFailed(f"waited {PATIENCE:.0f} s in vain: {what}")
        time.sleep(LOOK)


def _ids(url: str, count: int) -> Counter[str]:
    """Take this many messages out of the queue, and return how many have each id."""
    ids: Counter[str] = Counter()
    rest, deadline = b"", time.monotonic() + PATIENCE
    with closing(Wire(url)) as wire:
        for data in wire.reads(QUEUE):
            rest += data
            for found in _ID.finditer(rest):
                ids[found.group().decode()] += 1
            end = max((found.end() for found in _ID.finditer(rest)), default=0)
            rest = rest[max(end, len(rest) - _ID_LENGTH + 1) :]
            if ids.total() >= count:
                return ids
            if time.monotonic() > deadline:
                raise SideFailed(f"{ids.total()} of {count} messages are in the queue")
    raise SideFailed("the broker has closed the connection")


ROW = Row(
    "dead-letters",
    "100,000 dead letters: list, replay, and replays that are killed",
    (
        Measure("amqpworker", "`dead list`, then `dead replay --all --yes`", ours),
        Measure(KILLED, "`kill -9` when a fifth has been replayed, two fifths and so on; then one to its end", killed),
    ),
    (
        Limit("s to list", at_most=6, worst=True),
        Limit("letters/s", at_least=8000),
        Limit("MiB more of list", at_most=FLAT, worst=True),
        Limit(LOST, at_most=0, of=KILLED, worst=True),
        Limit("other ids", at_most=0, of=KILLED, worst=True),
        Limit(DOUBLED, at_most=BATCH, of=KILLED, worst=True),
    ),
    f"Each letter has a traceback of 2 kB. Times are from the start of the program to its end. Memory is the most that is "
    f"resident, and how much more that is than for {FEW:,} letters.",
    section=OPERATING,
)
