"""
Leave messages to idle processes of the same supervisor, so that they do not wait behind long tasks.

Decides when this process holds a queue, which means that it takes nothing from it: while all threads that serve it are busy
with long tasks, and another process that consumes it has an idle one. Then `receiver` requeues what waits here unstarted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from amqpworker.broker.address import Address
from amqpworker.ipc.recorder import Recorder, bit_of

# Tasks that keep all threads busy for this long are long ones; before `receiver` requeues what waits behind them, so that
# it does not go to another process that is as busy.
BUSY_SECONDS = 3.0


class Sharing:
    """
    Compares this process with the others by the flight recorder, at each check of its main thread.

    `bits` gives the bit of each queue, `has_room` returns whether a message of a queue could start at once, and `hold` is
    called with the queues to hold, whenever these change.
    """

    def __init__(
        self,
        recorder: Recorder,
        bits: Mapping[str, int],
        has_room: Callable[[str], bool],
        hold: Callable[[frozenset[str]], None],
    ) -> None:
        self._recorder = recorder
        self._bits = bits
        self._has_room = has_room
        self._hold = hold
        self._held: frozenset[str] = frozenset()
        # When a thread was idle last, or the queue was held for the last time.
        self._room_at: dict[str, float] = {}

    @property
    def holds(self) -> bool:
        """Whether a queue is held now, which means left to other processes."""
        return bool(self._held)

    def check(self, consumed: Collection[str], now: float) -> None:
        """Record for which of the `consumed` queues this process is idle, and hold or release queues."""
        elsewhere = self._recorder.idle_elsewhere()
        idle = 0
        held = set()
        for queue, bit in self._bits.items():
            room_at = self._room_at.setdefault(queue, now)
            if self._has_room(queue):
                self._room_at[queue] = now
                idle |= bit if queue in consumed else 0
            elif not elsewhere & bit:
                if queue in self._held:
                    # Held again after the same time as at first, not sooner.
                    self._room_at[queue] = now
            elif queue in self._held or now - room_at >= BUSY_SECONDS:
                held.add(queue)
        self._recorder.record_idle(idle)
        if held != self._held:
            self._held = frozenset(held)
            self._hold(self._held)


def bits_of(addresses: Sequence[Address], queues: Iterable[str]) -> dict[str, int]:
    """Return the bit of each queue; it is the same in every process with these addresses, in whatever order."""
    broker = " ".join(sorted(f"{one}/{one.virtual_host}" for one in addresses))
    return {queue: bit_of(broker, queue) for queue in queues}
