"""
Leave messages to idle processes of the same supervisor, so that they do not wait behind long tasks.

Decides when this process leaves a queue to others, which means that it takes nothing from it: while all threads that serve it
are busy with long tasks, and another process that consumes it has an idle one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from amqpworker.broker.address import Address
from amqpworker.ipc.recorder import Recorder, bit_of
from amqpworker.worker.service import Service

# Tasks that keep all threads busy for this long are long ones; before `receiver` requeues what waits behind them, so that
# it does not go to another process that is as busy.
BUSY_SECONDS = 3.0


class Sharing(Service):
    """
    Compares this process with the others by the flight recorder.

    `bits` gives the bit of each queue, `has_room` returns whether a message of a queue could start at once, `consumed` returns
    the queues that the process consumes, and `leave_to_others` is called with the queues to leave, whenever these change.
    """

    def __init__(
        self,
        recorder: Recorder,
        bits: Mapping[str, int],
        has_room: Callable[[str], bool],
        consumed: Callable[[], Collection[str]],
        leave_to_others: Callable[[frozenset[str]], None],
    ) -> None:
        self._recorder = recorder
        self._bits = bits
        self._has_room = has_room
        self._consumed = consumed
        self._leave_to_others = leave_to_others
        self._left: frozenset[str] = frozenset()
        # When a thread was idle last, or the queue was left to others for the last time.
        self._room_at: dict[str, float] = {}

    @property
    def leaves_queues(self) -> bool:
        """Whether a queue is left to other processes now."""
        return bool(self._left)

    def beat(self, now: float) -> None:
        """Record for which queues this process is idle, and leave queues to others or consume them again."""
        consumed = self._consumed()
        elsewhere = self._recorder.idle_elsewhere()
        idle = 0
        left = set()
        for queue, bit in self._bits.items():
            room_at = self._room_at.setdefault(queue, now)
            if self._has_room(queue):
                self._room_at[queue] = now
                idle |= bit if queue in consumed else 0
            elif not elsewhere & bit:
                if queue in self._left:
                    # Left again after the same time as at first, not sooner.
                    self._room_at[queue] = now
            elif queue in self._left or now - room_at >= BUSY_SECONDS:
                left.add(queue)
        self._recorder.record_idle(idle)
        if left != self._left:
            self._left = frozenset(left)
            self._leave_to_others(self._left)

    def drain(self) -> None:
        """Record that this process is idle for no queue."""
        self._recorder.record_idle(0)


def bits_of(addresses: Sequence[Address], queues: Iterable[str]) -> dict[str, int]:
    """Return the bit of each queue; it is the same in every process with these addresses, in whatever order."""
    broker = " ".join(sorted(f"{one}/{one.virtual_host}" for one in addresses))
    return {queue: bit_of(broker, queue) for queue in queues}
