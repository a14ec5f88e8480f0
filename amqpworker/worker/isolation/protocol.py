"""
The messages between a worker process and its isolated processes, over a pair of connected sockets.

Decides the frames, and the one byte by which a process knows that its present run is cancelled. A request is a pickle: headers
have values that JSON does not have, and the worker is trusted. The outcome comes as JSON and is validated, since user code has
run in the process that wrote it.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any, BinaryIO, TypeAlias

from pydantic import TypeAdapter, ValidationError

from amqpworker.model.message import Delivery
from amqpworker.model.outcome import Cancelled, Dead, Deferred, Done, Outcome, Retry, Snooze
from amqpworker.worker.context import Run

HEAD = struct.Struct("=cI")
READY, BEAT, OUTCOME, SPENT, REQUEST, PROGRESS = b"r", b"b", b"o", b"s", b"q", b"p"
Request: TypeAlias = tuple[Delivery, str, int, float, float]
"""A task to run: the arguments of its `Run` after the task."""

CANCELLED_FLAG = b"c"
"""The content of the file that a worker process and an isolated one share, once the present run is cancelled."""

KINDS = (READY, BEAT, OUTCOME, SPENT, REQUEST, PROGRESS)
MAX_BYTES = 1 << 30

ADAPTERS: dict[str, TypeAdapter[Any]] = {
    one.__name__: TypeAdapter(one) for one in (Done, Retry, Snooze, Deferred, Dead, Cancelled)
}


class Unreadable(Exception):
    """The received bytes are not a frame of ours, or not an outcome."""


def frame(kind: bytes, data: bytes = b"") -> bytes:
    """Return a frame."""
    return HEAD.pack(kind, len(data)) + data


class Frames:
    """Assembles the frames in a stream of bytes."""

    def __init__(self) -> None:
        self._unread = bytearray()

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Return each complete frame, its kind and its content; raises Unreadable if the stream has other bytes."""
        self._unread += data
        found = []
        while len(self._unread) >= HEAD.size:
            kind, length = HEAD.unpack_from(self._unread)
            if kind not in KINDS or length > MAX_BYTES:
                raise Unreadable(f"a frame of kind {kind!r} with {length} bytes is not valid")
            end = HEAD.size + length
            if len(self._unread) < end:
                break
            found.append((kind, bytes(self._unread[HEAD.size : end])))
            del self._unread[:end]
        return found


def request_to(run: Run) -> bytes:
    """Return the frame that requests a run."""
    original = run.delivery
    # Without its channel, which belongs to a connection of this process.
    delivery = Delivery(
        original.tag,
        original.redelivered,
        original.exchange,
        original.routing_key,
        original.properties,
        original.body,
    )
    delivery.queue = original.queue
    request: Request = (delivery, run.id, run.attempt, run.started, run.first_run)
    return frame(REQUEST, pickle.dumps(request))


def requested(stream: BinaryIO) -> Request | None:
    """Wait for the next request; None if there will be no more, as after the end of the worker process."""
    try:
        head = stream.read(HEAD.size)
        if len(head) < HEAD.size:
            return None
        _, length = HEAD.unpack(head)
        data = stream.read(length)
    except ConnectionResetError:
        # A worker process that was killed has left something unread, such as a heartbeat.
        return None
    return None if len(data) < length else pickle.loads(data)  # noqa: S301 - by the worker that has started us


def outcome_to(outcome: Outcome) -> bytes:
    """Return the frame of an outcome."""
    kind = type(outcome).__name__
    return frame(OUTCOME, kind.encode() + b"\n" + ADAPTERS[kind].dump_json(outcome))


def outcome_from(data: bytes) -> Outcome:
    """Return an outcome; raises Unreadable if it is not one."""
    kind, _, fields = data.partition(b"\n")
    adapter = ADAPTERS.get(kind.decode("ascii", "replace"))
    if adapter is None:
        raise Unreadable(f"{kind[:40]!r} is not an outcome of a task")
    try:
        outcome: Outcome = adapter.validate_json(fields, strict=True)
        return outcome
    except ValidationError as error:
        raise Unreadable(f"the outcome of the task is not valid: {error.error_count()} errors") from None
