"""
amqpworker's tasks in a worker process that has no flight recorder: its calls are there, and do nothing.

The app is imported before the process makes its threads, so what is put in place here is what they call.
"""

from __future__ import annotations

from amqpworker.ipc.recorder import RunSlot
from amqpworker.worker import executor

from bench.sides.ours import app

__all__ = ["app"]


def _not_running(self: RunSlot, key: bytes, run: object) -> None: ...


def _not_free(self: RunSlot) -> None: ...


def _no_key(delivery: object) -> bytes:
    return b""


RunSlot.mark_running = _not_running
RunSlot.mark_free = _not_free
executor.key_of = _no_key
