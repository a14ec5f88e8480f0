"""Stories of schedulers in simulated time: faults, commands and clocks, in any order."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from pydantic_core import to_json

from amqpworker.model.headers import time_text
from tests.unit.scheduler.simulated_scheduler import SimulatedScheduler
from tests.unit.scheduler.simulation import COMMON, VERSIONS, World

HOUR = 3_600_000
indices = st.integers(0, 3)
names = st.sampled_from([each.name for each in COMMON])
short = st.integers(1, 15_000)
skews = st.sampled_from([0, 0, 700, -700, 120_000, -120_000])
one_step = st.one_of(
    st.tuples(st.just("wait"), short),
    st.tuples(st.just("wait"), short),
    st.tuples(st.just("wait"), st.integers(1, 60_000)),
    st.tuples(st.just("kill"), indices),
    st.tuples(st.just("stop"), indices),
    st.tuples(st.just("start"), skews, st.integers(0, 1)),
    st.tuples(st.just("freeze"), indices, st.integers(1, 30_000)),
    st.tuples(st.just("lose"), indices),
    st.tuples(st.just("deafen"), indices),
    st.tuples(st.just("step"), indices, st.sampled_from([HOUR, -HOUR, 300_000, -300_000])),
    st.tuples(st.just("alarm"), short),
    st.tuples(st.just("silence"), short),
    st.tuples(st.just("purge")),
    st.tuples(st.just("delete")),
    st.tuples(st.just("forge"), st.integers(1, 60_000)),
    st.tuples(
        st.just("junk"),
        st.sampled_from([b"", b"{", b"[]", b'{"until": 1e3}', b'{"until": "9999-01-01T00:00:00Z"}', b'{"until": 1}']),
    ),
    st.tuples(st.just("command"), st.sampled_from(["pause", "pause", "resume", "list"]), names),
    st.tuples(st.just("command"), st.sampled_from(["pause", "pause", "resume", "list"]), names),
    st.tuples(st.just("refuse"), names, st.sampled_from(["nack", "published nack", "no confirm", ""])),
    st.tuples(st.just("store"), st.sampled_from(["ended", "running", "down", "hangs"])),
)


stories = {
    "seed": st.integers(0, 1000),
    "offsets": st.lists(skews, min_size=1, max_size=4),
    "steps": st.lists(one_step, max_size=25),
}
"""What `run_story` is given."""


class Story:
    """Performs steps in a world."""

    def __init__(self, seed: int, offsets: list[int]) -> None:
        self.world = World(seed)
        for offset in offsets:
            self.start(offset, 0)

    def perform(self, step: tuple[Any, ...]) -> None:
        getattr(self, step[0])(*step[1:])

    def wait(self, milliseconds: int) -> None:
        self.world.time.run(milliseconds)

    def start(self, offset: int, version: int) -> None:
        world = self.world
        world.schedulers = [each for each in world.schedulers if each.is_alive]
        if len(world.schedulers) < 4:
            world.offsets.append(offset)
            world.schedulers.append(SimulatedScheduler(world, VERSIONS[version], offset))

    def _scheduler(self, index: int) -> SimulatedScheduler | None:
        alive = [each for each in self.world.schedulers if each.is_alive]
        return alive[index] if index < len(alive) else None

    def kill(self, index: int) -> None:
        if scheduler := self._scheduler(index):
            scheduler.kill()

    def stop(self, index: int) -> None:
        if scheduler := self._scheduler(index):
            scheduler.stop()

    def freeze(self, index: int, milliseconds: int) -> None:
        if scheduler := self._scheduler(index):
            scheduler.freeze(milliseconds)

    def lose(self, index: int) -> None:
        if (scheduler := self._scheduler(index)) and scheduler.connection is not None:
            scheduler.connection.close()

    def deafen(self, index: int) -> None:
        if scheduler := self._scheduler(index):
            scheduler.deafen()

    def step(self, index: int, milliseconds: int) -> None:
        scheduler = self._scheduler(index)
        if scheduler is not None and abs(scheduler.offset + milliseconds) < 1.1 * HOUR:
            scheduler.offset += milliseconds
            self.world.offsets.append(scheduler.offset)

    def alarm(self, milliseconds: int) -> None:
        self.world.broker.has_alarm = True
        self.world.time.after(milliseconds, self.world.broker.end_alarm)

    def silence(self, milliseconds: int) -> None:
        self.world.silence()
        self.world.time.after(milliseconds, self.world.broker.end_silence)

    def purge(self) -> None:
        if self.world.broker.ready:
            self._lose_tokens()
        self.world.broker.ready.clear()

    def delete(self) -> None:
        self._lose_tokens()
        self.world.broker.delete()

    def _lose_tokens(self) -> None:
        """Whatever leads next may know nothing."""
        world = self.world
        world.excuse_all(world.time.now + 190_000)

    def forge(self, ahead: int) -> None:
        until = self.world.time.now + max(self.world.offsets) + ahead
        self.world.put_token(to_json({"until": time_text(until)}))
        self.world.excuse_all(until)

    def junk(self, body: bytes) -> None:
        self.world.put_token(body)

    def command(self, kind: str, name: str) -> None:
        self.world.command(kind, name)

    def refuse(self, name: str, how: str) -> None:
        self.world.refuse(name, how)

    def store(self, how: str) -> None:
        self.world.store = how

    def end(self) -> None:
        """End all faults, and check what must hold some time later."""
        world = self.world
        world.broker.end_alarm()
        world.broker.end_silence()
        for name in list(world.refused):
            world.refuse(name, "")
        world.store = "ended"
        self.start(0, 0)
        self.wait(31_000)  # those that are frozen continue
        # All clocks are right again, and past each token.
        ahead = max(0, *world.offsets) + 61_000
        for each in world.schedulers:
            each.offset = ahead
        world.offsets.append(ahead)
        self.wait(100_000)
        world.check_end()


def run_story(seed: int, offsets: list[int], steps: list[tuple[Any, ...]]) -> None:
    """Start schedulers whose clocks are so far ahead, perform the steps, and check what must hold at the end."""
    story = Story(seed, offsets)
    for step in steps:
        story.perform(step)
    story.end()
