"""
The program that ends whatever worker processes survive their supervisor: it hangs at a supervisor and outlives it.

A worker process learns by its leash that its supervisor is gone, and drains. One that hangs in C with the interpreter's
lock held learns nothing, and nothing in it could act: so this is a process of its own. It imports the standard library, and
one module that does no more, to be small. Decides nothing: each process has as many seconds as `will` gave it. What its
tasks have started ends with it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from contextlib import suppress

from amqpworker.ipc.descendants import Ending, Known, descendants_of, group_of, living, stat_of

__all__ = ["LONGEST", "decode", "encode", "main"]

# Bytes of what is told at once: several thousand processes.
LONGEST = 128 * 1024
IGNORED = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU),
)
# `worker.report.DUMP_SIGNAL`, and how long writing takes.
DUMP_SIGNAL = signal.SIGUSR2
DUMP_GRACE = 1.0
# A killed process may be in the kernel for a while.
FAREWELL = 20.0


class Ward:
    """
    A worker process: a descriptor that becomes readable with its end, and how long it may survive its supervisor.

    `seen` is what it has started; `ending` is the end of that, once the process itself has ended.
    """

    # No dataclass: that alone would make this program half as large again.
    def __init__(self, pid: int, descriptor: int, patience: float) -> None:
        self.descriptor = descriptor
        self.patience = patience
        self.dumped = False
        self.seen: set[Known] = set()
        self.ending: Ending | None = None
        self._pid = pid

    def look(self) -> None:
        """Note what the process has started."""
        self.seen = self.living() | descendants_of(self._pid)

    def living(self) -> set[Known]:
        """Return what of it has not ended."""
        self.seen = living(self.seen)
        return self.seen

    def begin_ending(self) -> None:
        """Begin to end what the process has left, its process group included."""
        if stat_of(self._pid) is None:  # else another process may have its id by now
            self.seen |= group_of(self._pid)
        self.ending = Ending(self.living, time.monotonic())


def encode(patience: dict[int, float]) -> bytes:
    """Return what tells which processes there are, and how many seconds each has; never empty."""
    return b" ".join(b"%d:%.3f" % one for one in patience.items()) or b" "


def decode(data: bytes) -> dict[int, float]:
    """Return what `encode` was given."""
    pairs = [one.split(b":") for one in data.split()]
    return {int(pid): float(seconds) for pid, seconds in pairs}


def listen(line: socket.socket) -> dict[int, Ward]:
    """Follow what the supervisor tells until it is gone; return the processes that it has left."""
    wards: dict[int, Ward] = {}
    while data := line.recv(LONGEST):
        told = decode(data)
        for pid in wards.keys() - told.keys():
            os.close(wards.pop(pid).descriptor)
        for pid, patience in told.items():
            if pid in wards:
                wards[pid].patience = patience
            else:
                with suppress(OSError):  # it has ended already
                    wards[pid] = Ward(pid, os.pidfd_open(pid), patience)
    return wards


def outlast(wards: dict[int, Ward]) -> None:
    """Wait for the end of all, and see to it."""
    began = time.monotonic()
    until = began + max((ward.patience for ward in wards.values()), default=0.0) + DUMP_GRACE + FAREWELL
    ends = select.poll()
    for ward in wards.values():
        ends.register(ward.descriptor, select.POLLIN)
    while wards and time.monotonic() < until:
        ended = {descriptor for descriptor, _ in ends.poll(100)}
        for pid, ward in list(wards.items()):
            if ward.ending is not None:
                if ward.ending.proceed(time.monotonic()):
                    del wards[pid]
            elif ward.descriptor in ended:
                ends.unregister(ward.descriptor)
                ward.begin_ending()
            else:
                ward.look()
                press(pid, ward, time.monotonic() - began - ward.patience)


def press(pid: int, ward: Ward, late: float) -> None:
    """Have a process that is late write its stacks, and a moment later kill it."""
    with suppress(ProcessLookupError):
        if late >= 0 and not ward.dumped:
            ward.dumped = True
            os.kill(pid, DUMP_SIGNAL)
            tell(f"amqpworker: process {pid} survives its supervisor: its stacks follow, then it is killed\n")
        elif late >= DUMP_GRACE:
            os.kill(pid, signal.SIGKILL)


def tell(line: str) -> None:
    """Write to standard error, unless nobody reads it."""
    with suppress(OSError):
        if select.select([], [2], [], 0)[1]:
            os.write(2, line.encode())


def main(descriptor: int) -> None:
    """Run until there is neither a supervisor nor a worker process; `descriptor` is a socket whose end means the first."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    outlast(listen(socket.socket(fileno=descriptor)))
