"""
When each task began and ended: one shared file, two cells a task, written by every side in the same way.

A cell holds nanoseconds since the epoch, 0 while nothing has happened. A task writes its own cell, so nothing is
locked and nothing is counted twice; the bench reads the file from outside. Writing costs about 0.1 µs, for each library.

With several worker processes the first task of each waits at a gate until all processes have one: no side is
measured while half of its processes are still starting.

Only the standard library is imported here, because the peers' processes import it too.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from array import array
from pathlib import Path

WORD = 8
GATE_PATIENCE = 60.0


class Tally:
    """The cells of a run, for the bench and for the tasks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._cells = memoryview(self._map).cast("Q")
        self.count = len(self._cells) // 2
        self.begun = self._cells[: self.count]
        self.ended = self._cells[self.count :]

    @classmethod
    def create(cls, path: Path, count: int) -> Tally:
        """Make the file for this many tasks, all cells 0."""
        path.write_bytes(bytes(2 * WORD * count))
        gate_of(path).write_bytes(b"")
        return cls(path)

    def clear(self) -> None:
        """Set all cells to 0 again, and shut the gate."""
        self._map[:] = bytes(len(self._map))
        gate_of(self.path).write_bytes(b"")

    def unfinished(self) -> int:
        """Return how many tasks have not ended."""
        return array("Q", self.ended.tobytes()).count(0)

    def wait(self, patience: float, alive: object = None) -> bool:
        """Wait until all tasks have ended; False when that takes longer than `patience` seconds."""
        deadline = time.monotonic() + patience
        while True:
            if self.ended[-1] and not self.unfinished():
                return True
            if time.monotonic() > deadline:
                return False
            if callable(alive):
                alive()
            time.sleep(0.02)

    def seconds(self, end: int = 0) -> float:
        """
        Return the time from the first beginning (the first end, where tasks note only that) to the last end.

        That may be later than the end of the last task: `end`, in nanoseconds since the epoch.
        """
        ends = self.ended.tolist()
        begins = [cell for cell in self.begun.tolist() if cell] or ends
        return (max(end, *ends) - min(begins)) / 1e9


def gate_of(path: Path) -> Path:
    """Return the file in which each worker process writes one byte when its first task runs."""
    return path.with_suffix(".gate")


class Gate:
    """Holds the first task of each process until every process has one."""

    def __init__(self, path: Path, processes: int) -> None:
        self._path = path
        self._processes = processes
        self._lock = threading.Lock()
        self.open = processes < 2

    def wait(self) -> None:
        """Announce this process once, and wait for the others."""
        with self._lock:
            if self.open:
                return
            with self._path.open("ab") as file:
                file.write(b".")
            deadline = time.monotonic() + GATE_PATIENCE
            while self._path.stat().st_size < self._processes:
                if time.monotonic() > deadline:
                    raise TimeoutError("the other worker processes never ran a task")
                time.sleep(0.001)
            self.open = True


class Marks:
    """What a task's body calls: `begin` and `end`."""

    def __init__(self, tally: Tally, gate: Gate) -> None:
        self._begun = tally.begun
        self._ended = tally.ended
        self._gate = gate

    def begin(self, index: int) -> bool:
        """Note the beginning; True when this task had not begun before."""
        if not self._gate.open:
            self._gate.wait()
        if self._begun[index]:
            return False
        self._begun[index] = time.time_ns()
        return True

    def end(self, index: int) -> None:
        """Note the end. An empty task notes nothing else."""
        if not self._gate.open:
            self._gate.wait()
        self._ended[index] = time.time_ns()


def marks() -> Marks:
    """Open the tally that the bench named in the environment."""
    path = Path(os.environ["BENCH_TALLY"])
    return Marks(Tally(path), Gate(gate_of(path), int(os.environ.get("BENCH_PROCESSES", "1"))))
