"""
The flight recorder of a worker process: which tasks it runs, in shared memory that outlives the process.

Decides the layout. The process writes, its supervisor reads at any time, also after a SIGKILL. A slot is marked as running
after all of it is written, so that a half-written slot counts as not started. Anything that is not a recording is detected.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import struct
import time
from dataclasses import astuple, dataclass
from operator import add
from typing import TYPE_CHECKING, TypeAlias

from amqpworker.ipc.exit_status import OVERDUE

if TYPE_CHECKING:
    from amqpworker.model.message import Delivery
    from amqpworker.worker.context import Run

Memory: TypeAlias = mmap.mmap | bytearray

MAGIC = b"awflight"
VERSION = 3
THREADS = ("main thread", "consumer thread", "publisher thread", "event loop")
MAIN, CONSUMER, PUBLISHER, EVENT_LOOP = range(len(THREADS))

HEADER = struct.Struct("=8sII4d4QB3I")
HEARTBEAT = struct.Struct("=d")
COUNTS = struct.Struct("=4QB3I")
HEARTBEATS_AT = 16
COUNTS_AT = HEARTBEATS_AT + len(THREADS) * HEARTBEAT.size
# Attempt, start, limit, the key and the name of the task; the byte before them is 1 while it runs.
SLOT = struct.Struct("=Idd64p64p")
PACK = SLOT.pack_into
SLOT_SIZE = 1 + SLOT.size
KEY_BYTES = 64
MAX_SLOTS = 1_000_000
# After the slots: the queues for which the process is idle (it could start a message at once), and those for which another one
# is, which the supervisor writes. Two queues may share a bit: then messages are requeued unnecessarily.
IDLE, ELSEWHERE = range(2)
IDLE_BITS = 1024
IDLE_BYTES = IDLE_BITS // 8


@dataclass(frozen=True, slots=True)
class Counts:
    """How many deliveries of a process had which outcome."""

    done: int = 0
    retried: int = 0
    dead: int = 0
    requeued: int = 0

    def plus(self, others: Counts) -> Counts:
        """Return the sum of both."""
        return Counts(*map(add, astuple(self), astuple(others)))

    @property
    def settled(self) -> int:
        """How many were not requeued."""
        return self.done + self.retried + self.dead


@dataclass(frozen=True, slots=True)
class Gauges:
    """
    How many isolated processes are in use (`isolated`), and how many messages wait for one (`waiting_suspects`).

    `unconfirmed`: how many retries and dead letters the broker has not confirmed in time; their queue may lack a majority.
    """

    isolated: int = 0
    waiting_suspects: int = 0
    unconfirmed: int = 0


@dataclass(frozen=True, slots=True)
class Running:
    """
    A task that has started: times are seconds since the epoch, `limit` is 0 if there is none.

    `over` is by how many seconds it had exceeded that when a supervisor made its status.
    """

    slot: int
    key: str
    task: str
    attempt: int
    started: float
    limit: float
    over: float = 0.0

    def seconds_over(self, now: float) -> float:
        """Return by how many seconds it exceeds its time limit, 0 if it does not."""
        return max(0.0, now - self.limit) if self.limit else 0.0


@dataclass(frozen=True, slots=True)
class Recording:
    """
    What a process has recorded.

    `heartbeats` are monotonic times, in the order of `THREADS`, 0 if such a thread has not started; `idle` are bits of queues.
    """

    heartbeats: tuple[float, ...]
    counts: Counts
    running: tuple[Running, ...]
    consuming: bool = False
    gauges: Gauges = Gauges()
    idle: int = 0

    def stalled_thread(self, now: float, timeout: float) -> str:
        """Return which thread has made no progress for `timeout` seconds, "" if there is none; `now` is monotonic."""
        for name, heartbeat in zip(THREADS, self.heartbeats, strict=True):
            if heartbeat and now - heartbeat > timeout:
                return f"its {name} has made no progress for {now - heartbeat:.0f} s"
        return ""

    def has_overdue_task(self, now: float) -> bool:
        """Return whether a task is overdue; `now` is seconds since the epoch."""
        return any(run.seconds_over(now) >= OVERDUE for run in self.running)


def size_of(slots: int) -> int:
    """Return the size in bytes of a recording with this many slots."""
    return HEADER.size + slots * SLOT_SIZE + 2 * IDLE_BYTES


def _bits_at(slots: int, which: int) -> slice:
    """Return the position of the bits of idle queues: those of the process itself (`IDLE`), or of others (`ELSEWHERE`)."""
    begin = HEADER.size + slots * SLOT_SIZE + which * IDLE_BYTES
    return slice(begin, begin + IDLE_BYTES)


def bit_of(broker: str, queue: str) -> int:
    """Return the bit of a queue; `broker` includes the virtual host, since another one may have a queue of the same name."""
    digest = hashlib.blake2b(f"{broker}\n{queue}".encode("utf-8", "replace"), digest_size=4).digest()
    return 1 << int.from_bytes(digest, "little") % IDLE_BITS


def record_idle_elsewhere(memory: Memory, slots: int, bits: int) -> None:
    """Write into the recording of a process for which queues another one is idle; the supervisor calls this."""
    memory[_bits_at(slots, ELSEWHERE)] = bits.to_bytes(IDLE_BYTES, "little")


def key_of(delivery: Delivery) -> bytes:
    """
    Return the key that identifies a message in recordings, which is the same for each delivery of it.

    A message without an id gets a new one at each delivery, so its key is made of its contents.
    """
    properties = delivery.properties
    if message_id := properties.message_id:
        key = message_id.encode()
        return key if len(key) < KEY_BYTES else b"#" + hashlib.blake2b(key, digest_size=16).hexdigest().encode()
    digest = hashlib.blake2b(delivery.body, digest_size=16, key=f"{delivery.queue} {properties.type}".encode()[:64])
    return b"#" + digest.hexdigest().encode()


class RunSlot:
    """Where one runner thread, or one coroutine, records what it runs; one thread writes it."""

    __slots__ = ("_fields", "_flag", "_memory")

    def __init__(self, memory: Memory, number: int) -> None:
        self._memory = memory
        self._flag = HEADER.size + number * SLOT_SIZE
        self._fields = self._flag + 1

    def mark_running(self, key: bytes, run: Run) -> None:
        """Record that a task starts."""
        # `struct` truncates what is longer than its field.
        PACK(self._memory, self._fields, run.attempt, run.started, run.limit_ends, key, run.registered.name.encode())
        self._memory[self._flag] = 1

    def mark_free(self) -> None:
        """Record that the task has ended."""
        self._memory[self._flag] = 0


class Recorder:
    """Writes a recording: into shared memory, or without a supervisor into memory of its own."""

    def __init__(self, slots: int, memory: Memory | None = None) -> None:
        self.memory: Memory = bytearray(size_of(slots)) if memory is None else memory
        self.slots = [RunSlot(self.memory, number) for number in range(slots)]
        struct.pack_into("=8sII", self.memory, 0, MAGIC, VERSION, slots)

    def clear(self) -> None:
        """Record that nothing runs any more: this process ends by itself, and no task has crashed it."""
        for slot in self.slots:
            slot.mark_free()

    def beat(self, thread: int) -> None:
        """Record that a thread (by its index in `THREADS`) makes progress."""
        HEARTBEAT.pack_into(self.memory, HEARTBEATS_AT + thread * HEARTBEAT.size, time.monotonic())

    def record(self, counts: Counts, consuming: bool, gauges: Gauges) -> None:
        """Record the counts, whether every queue has a consumer, and the gauges."""
        COUNTS.pack_into(self.memory, COUNTS_AT, *astuple(counts), consuming, *astuple(gauges))

    def record_idle(self, bits: int) -> None:
        """Record for which queues a message could start at once."""
        self.memory[_bits_at(len(self.slots), IDLE)] = bits.to_bytes(IDLE_BYTES, "little")

    def idle_elsewhere(self) -> int:
        """Return for which queues another process of the supervisor was idle at its last check."""
        return int.from_bytes(self.memory[_bits_at(len(self.slots), ELSEWHERE)], "little")


def map_memory(descriptor: int) -> mmap.mmap:
    """Map the memory behind a descriptor, and close the descriptor."""
    try:
        return mmap.mmap(descriptor, 0)
    finally:
        os.close(descriptor)


def read_recording(memory: Memory) -> Recording | None:
    """Return what is recorded, None if it is not a recording; while the process writes a slot, that slot is left out."""
    if len(memory) < HEADER.size:
        return None
    magic, version, slots, *numbers = HEADER.unpack_from(memory)
    if magic != MAGIC or version != VERSION or slots > MAX_SLOTS or len(memory) < size_of(slots):
        return None
    heartbeats, counts, consuming, gauges = tuple(numbers[:4]), Counts(*numbers[4:8]), numbers[8], Gauges(*numbers[9:])
    if not all(math.isfinite(heartbeat) and heartbeat >= 0 for heartbeat in heartbeats):
        return None
    running = (_read_slot(memory, number) for number in range(slots))
    idle = int.from_bytes(memory[_bits_at(slots, IDLE)], "little")
    return Recording(heartbeats, counts, tuple(filter(None, running)), bool(consuming), gauges, idle)


def _read_slot(memory: Memory, number: int) -> Running | None:
    at = HEADER.size + number * SLOT_SIZE
    if memory[at] != 1:
        return None
    before = bytes(memory[at : at + SLOT_SIZE])
    # Equal both times: it was not being written in between.
    if before != bytes(memory[at : at + SLOT_SIZE]):
        return None
    attempt, started, limit, key, task = SLOT.unpack_from(before, 1)
    if not (math.isfinite(started) and math.isfinite(limit)):
        return None
    return Running(number, key.decode("utf-8", "replace"), task.decode("utf-8", "replace"), attempt, started, limit)
