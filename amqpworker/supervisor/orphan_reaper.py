"""
A program that ends the worker processes which survive their supervisor. It waits for the end of the supervisor.

A worker process notices that its supervisor is gone by the end of a pipe, and drains. One that hangs in C with the
interpreter's lock held cannot notice it, and no code in it could act: so this is a process of its own. To be small, it imports
only the standard library, and modules of `ipc` that do the same. Each process has the grace period that `orphan_guard` has
sent; then it is killed, and the processes that its tasks have started are terminated.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from contextlib import suppress

from amqpworker.ipc.descendants import (
    ProcessSet,
    Termination,
    descendants_of,
    group_members,
    stat_of,
)
from amqpworker.ipc.stray_signals import BLOCKED_AT_START, DUMP_GRACE, DUMP_SIGNAL

# In bytes: several thousand processes.
MAX_MESSAGE = 128 * 1024
IGNORED = (signal.SIGINT, signal.SIGTERM, *BLOCKED_AT_START)
# A killed process may be stuck in a system call.
EXIT_GRACE = 20.0


class LeftWorker(ProcessSet):
    """
    A worker process that may survive its supervisor by `grace` seconds, as the set of what it has started.

    `descriptor` becomes readable when it ends; then `termination` ends what it has started.
    """

    # Not a dataclass: importing that module alone would make this program half as large again.
    def __init__(self, pid: int, descriptor: int, grace: float) -> None:
        super().__init__()
        self.descriptor = descriptor
        self.grace = grace
        self.dumped = False
        self.termination: Termination | None = None
        self._pid = pid

    def find_descendants(self) -> None:
        """Remember what the process has started."""
        self.keys = self.alive() | descendants_of(self._pid)

    def terminate_descendants(self) -> None:
        """Start to terminate its descendants and its process group."""
        if stat_of(self._pid) is None:  # else another process may have its id by now
            self.keys |= group_members(self._pid)
        self.termination = Termination(self.alive, time.monotonic())


def encode(grace: dict[int, float]) -> bytes:
    """Return the grace period of each process as a message, which is never empty."""
    return b" ".join(b"%d:%.3f" % pair for pair in grace.items()) or b" "


def decode(data: bytes) -> dict[int, float]:
    """Return what `encode` was given."""
    pairs = [pair.split(b":") for pair in data.split()]
    return {int(pid): float(seconds) for pid, seconds in pairs}


def _receive_until_closed(connection: socket.socket) -> dict[int, LeftWorker]:
    """Follow the messages of the supervisor until it has ended; return the worker processes that it has left."""
    workers: dict[int, LeftWorker] = {}
    while data := connection.recv(MAX_MESSAGE):
        current = decode(data)
        for pid in workers.keys() - current.keys():
            os.close(workers.pop(pid).descriptor)
        for pid, grace in current.items():
            if pid in workers:
                workers[pid].grace = grace
            else:
                with suppress(OSError):  # it has ended already
                    workers[pid] = LeftWorker(pid, os.pidfd_open(pid), grace)
    return workers


def _end_all(workers: dict[int, LeftWorker]) -> None:
    """Wait for the end of all worker processes, and kill those that do not end in time."""
    began = time.monotonic()
    until = began + max((worker.grace for worker in workers.values()), default=0.0) + DUMP_GRACE + EXIT_GRACE
    ends = select.poll()
    for worker in workers.values():
        ends.register(worker.descriptor, select.POLLIN)
    while workers and time.monotonic() < until:
        ended = {descriptor for descriptor, _ in ends.poll(100)}
        for pid, worker in list(workers.items()):
            if worker.termination is not None:
                if worker.termination.proceed(time.monotonic()):
                    del workers[pid]
            elif worker.descriptor in ended:
                ends.unregister(worker.descriptor)
                worker.terminate_descendants()
            else:
                worker.find_descendants()
                _kill_if_late(pid, worker, time.monotonic() - began - worker.grace)


def _kill_if_late(pid: int, worker: LeftWorker, late: float) -> None:
    """Make a process that is late write its stacks, and kill it a moment later."""
    with suppress(ProcessLookupError):
        if late >= 0 and not worker.dumped:
            worker.dumped = True
            os.kill(pid, DUMP_SIGNAL)
            _write_line(f"amqpworker: process {pid} survives its supervisor: its stacks follow, then it is killed\n")
        elif late >= DUMP_GRACE:
            os.kill(pid, signal.SIGKILL)


def _write_line(line: str) -> None:
    """Write to standard error, unless that would block."""
    with suppress(OSError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, line.encode())


def main(descriptor: int) -> None:
    """Run until the supervisor and all its worker processes have ended; `descriptor` is a socket that ends with the supervisor."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    _end_all(_receive_until_closed(socket.socket(fileno=descriptor)))
