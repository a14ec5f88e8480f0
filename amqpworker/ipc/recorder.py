"""
The flight recorder of a worker process: what each runner does, in memory that outlives the process.

Decides the layout. The process writes, its supervisor reads at any time, also after a SIGKILL. A slot is marked as
running after all of it is written, so that what is half written was not begun. What is no recording is told apart.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from amqpworker.ipc.idle_queues import IDLE_BYTES, bytes_of

if TYPE_CHECKING:
    from amqpworker.model.message import Delivery

__all__ = [
    "CONSUMER",
    "EVENT_LOOP",
    "HEARTS",
    "MAIN",
    "PUBLISHER",
    "Counts",
    "Gauges",
    "Recorder",
    "Recording",
    "RunSlot",
    "Running",
    "key_of",
    "mapped",
    "note_elsewhere",
    "read",
    "size_of",
]

Memory: TypeAlias = mmap.mmap | bytearray

MAGIC = b"awflight"
VERSION = 3
HEARTS = ("main thread", "consumer thread", "publisher thread", "event loop")
MAIN, CONSUMER, PUBLISHER, EVENT_LOOP = range(len(HEARTS))

HEADER = struct.Struct("=8sII4d4QB3I")
HEART = struct.Struct("=d")
COUNTS = struct.Struct("=4QB3I")
FIRST_HEART = 16
COUNTS_AT = FIRST_HEART + len(HEARTS) * HEART.size
# Attempt, start, limit, the key and the name of the task; the byte before them tells whether it runs.
SLOT = struct.Struct("=Idd64p64p")
PACK = SLOT.pack_into
SLOT_SIZE = 1 + SLOT.size
KEY_BYTES = 64
MOST_SLOTS = 1_000_000
# Behind the slots: for which queues the process is idle, and for which another one is, written by the supervisor.
IDLE, ELSEWHERE = range(2)


@dataclass(frozen=True, slots=True)
class Counts:
    """How many deliveries of a process ended how."""

    done: int = 0
    retried: int = 0
    dead: int = 0
    requeued: int = 0

    def plus(self, others: Counts) -> Counts:
        """Return the sum of both."""
        return Counts(
            self.done + others.done,
            self.retried + others.retried,
            self.dead + others.dead,
            self.requeued + others.requeued,
        )

    @property
    def settled(self) -> int:
        """How many were settled for good, as far as this process goes."""
        return self.done + self.retried + self.dead


@dataclass(frozen=True, slots=True)
class Gauges:
    """
    What is so at this moment.

    `isolated` processes are in use, `waiting_suspects` wait until as many run as may, and `unconfirmed` copies were published
    and are not confirmed though it is time: their queue has no majority, perhaps.
    """

    isolated: int = 0
    waiting_suspects: int = 0
    unconfirmed: int = 0


@dataclass(frozen=True, slots=True)
class Running:
    """A task that has started: times are seconds since the epoch, `limit` is 0 where there is none."""

    slot: int
    key: str
    task: str
    attempt: int
    started: float
    limit: float


@dataclass(frozen=True, slots=True)
class Recording:
    """What a process has written; `hearts` are monotonic, 0 if such a thread has not begun; `idle` are bits of queues."""

    hearts: tuple[float, ...]
    counts: Counts
    running: tuple[Running, ...]
    consuming: bool = False
    gauges: Gauges = Gauges()
    idle: int = 0


def size_of(slots: int) -> int:
    """Return how many bytes a recording with so many slots has."""
    return HEADER.size + slots * SLOT_SIZE + 2 * IDLE_BYTES


def bits_at(slots: int, which: int) -> slice:
    """Return where the bits of idle queues are: those of the process itself, or of the others."""
    begin = HEADER.size + slots * SLOT_SIZE + which * IDLE_BYTES
    return slice(begin, begin + IDLE_BYTES)


def note_elsewhere(memory: Memory, slots: int, bits: int) -> None:
    """Write into the recording of a process for which queues another one is idle; by the supervisor."""
    memory[bits_at(slots, ELSEWHERE)] = bytes_of(bits)


def key_of(delivery: Delivery) -> bytes:
    """
    Return what a message is known by in a recording, also after it was delivered again.

    A message without an id is given another at each delivery: it is known by its contents.
    """
    properties = delivery.properties
    if message_id := properties.message_id:
        key = message_id.encode()
        return key if len(key) < KEY_BYTES else b"#" + hashlib.blake2b(key, digest_size=16).hexdigest().encode()
    digest = hashlib.blake2b(delivery.body, digest_size=16, key=f"{delivery.queue} {properties.type}".encode()[:64])
    return b"#" + digest.hexdigest().encode()


class RecordedRun(Protocol):
    """A run as it is noted: `started` and `limit_ends` are seconds since the epoch, `limit_ends` is 0 if it has no limit."""

    @property
    def attempt(self) -> int: ...

    @property
    def started(self) -> float: ...

    @property
    def limit_ends(self) -> float: ...

    @property
    def task(self) -> str: ...


class RunSlot:
    """Where one runner, or one coroutine, notes what it runs; one thread writes it."""

    __slots__ = ("_fields", "_flag", "_memory")

    def __init__(self, memory: Memory, number: int) -> None:
        self._memory = memory
        self._flag = HEADER.size + number * SLOT_SIZE
        self._fields = self._flag + 1

    def begin(self, key: bytes, run: RecordedRun) -> None:
        """Note that a task starts."""
        # What is longer than its field is cut off there.
        PACK(self._memory, self._fields, run.attempt, run.started, run.limit_ends, key, run.task.encode())
        self._memory[self._flag] = 1

    def end(self) -> None:
        """Note that it is over."""
        self._memory[self._flag] = 0


class Recorder:
    """The writing side; without memory of a supervisor it writes into its own."""

    def __init__(self, slots: int, memory: Memory | None = None) -> None:
        self._memory: Memory = bytearray(size_of(slots)) if memory is None else memory
        self.slots = [RunSlot(self._memory, number) for number in range(slots)]
        struct.pack_into("=8sII", self._memory, 0, MAGIC, VERSION, slots)

    @property
    def memory(self) -> Memory:
        """What it is written to."""
        return self._memory

    def clear(self) -> None:
        """Note that nothing runs any more: this process ends by itself, and no task is to be blamed for it."""
        for slot in self.slots:
            slot.end()

    def beat(self, heart: int) -> None:
        """Note that a thread (by its index in `HEARTS`) is alive."""
        HEART.pack_into(self._memory, FIRST_HEART + heart * HEART.size, time.monotonic())

    def note(self, counts: Counts, consuming: bool, gauges: Gauges) -> None:
        """Note how many deliveries ended how, whether every queue has a consumer, and what is so now."""
        ended = (counts.done, counts.retried, counts.dead, counts.requeued)
        now = (gauges.isolated, gauges.waiting_suspects, gauges.unconfirmed)
        COUNTS.pack_into(self._memory, COUNTS_AT, *ended, consuming, *now)

    def note_idle(self, bits: int) -> None:
        """Note for which queues a message could start at once."""
        self._memory[bits_at(len(self.slots), IDLE)] = bytes_of(bits)

    def idle_elsewhere(self) -> int:
        """Return for which queues another process of the supervisor is idle, as it saw at its last look."""
        return int.from_bytes(self._memory[bits_at(len(self.slots), ELSEWHERE)], "little")


def mapped(descriptor: int) -> mmap.mmap:
    """Return the memory behind a descriptor, which is not needed any more then."""
    try:
        return mmap.mmap(descriptor, 0)
    finally:
        os.close(descriptor)


def read(memory: Memory) -> Recording | None:
    """Return what is recorded, None where it is no recording; while the process writes, a slot may be missing."""
    if len(memory) < HEADER.size:
        return None
    magic, version, slots, *numbers, consuming, isolated, waiting, unconfirmed = HEADER.unpack_from(memory)
    if magic != MAGIC or version != VERSION or slots > MOST_SLOTS or len(memory) < size_of(slots):
        return None
    hearts = tuple(numbers[: len(HEARTS)])
    if not all(math.isfinite(heart) and heart >= 0 for heart in hearts):
        return None
    running = [one for number in range(slots) if (one := _read_slot(memory, number)) is not None]
    counts = Counts(*numbers[len(HEARTS) :])
    idle = int.from_bytes(memory[bits_at(slots, IDLE)], "little")
    return Recording(hearts, counts, tuple(running), bool(consuming), Gauges(isolated, waiting, unconfirmed), idle)


def _read_slot(memory: Memory, number: int) -> Running | None:
    at = HEADER.size + number * SLOT_SIZE
    if memory[at] != 1:
        return None
    before = bytes(memory[at : at + SLOT_SIZE])
    # Twice the same: nobody was writing it in between.
    if before != bytes(memory[at : at + SLOT_SIZE]):
        return None
    attempt, started, limit, key, task = SLOT.unpack_from(before, 1)
    if not (math.isfinite(started) and math.isfinite(limit)):
        return None
    return Running(number, key.decode("utf-8", "replace"), task.decode("utf-8", "replace"), attempt, started, limit)
