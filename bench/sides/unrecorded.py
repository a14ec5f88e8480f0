"""
amqpworker's tasks in a worker process that has no flight recorder: its calls are there, and do nothing.

The app is imported before the process makes its threads, so what is put in place here is what they call.
"""

from __future__ import annotations

from amqpworker.ipc.recorder import Slot
from amqpworker.worker import event_loop as coroutines
from amqpworker.worker import threads as runners

from bench.sides.ours import app

__all__ = ["app"]


def _no_begin(self: Slot, key: bytes, run: object) -> None: ...


def _no_end(self: Slot) -> None: ...


def _no_key(delivery: object) -> bytes:
    return b""


Slot.begin = _no_begin
Slot.end = _no_end
runners.key_of = coroutines.key_of = _no_key
