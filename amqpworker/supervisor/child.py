"""
A worker process as its parent holds it: the process, two pipes, and the memory that it records in.

Decides how a process is started: a fresh interpreter in a process group of its own. What it says is handed on unjudged.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from amqpworker.supervisor.pools import PoolSpec
from amqpworker.worker.recorder import Recording, note_elsewhere, read, size_of
from amqpworker.worker.report import Answers, Report, heard

__all__ = ["Child"]

# A process that writes without end must not keep us from hearing signals; a dead one's pipe holds less than this.
MOST_READS = 16
READ_BYTES = 65536
PAGE = os.sysconf("SC_PAGE_SIZE")


class Child:
    """
    A running worker process.

    `reports` is our end of the pipe that it tells of itself by, -1 once that has ended; the other pipe is its leash:
    `answers` go there, and its end tells the process that we are gone. `waits` is what it waits for before it consumes, as
    it has reported.

    Raises:
        OSError: the machine has no room for another process or pipe, as it may have in a moment.
    """

    def __init__(self, spec: PoolSpec) -> None:
        theirs: list[int] = []
        self.strange = False
        self.waits = ""
        self._slots = spec.slots
        self._unread = b""
        self.reports = self._leash = -1
        self._memory: mmap.mmap | None = None
        try:
            leashed, self._leash = os.pipe()
            theirs.append(leashed)
            self.reports, reporting = os.pipe()
            theirs.append(reporting)
            os.set_blocking(self.reports, False)
            self.answers = Answers(self._leash)
            recording, self._memory = shared_memory(size_of(spec.slots))
            theirs.append(recording)
            command = [sys.executable, "-m", "amqpworker.worker.process", json.dumps(spec.options)]
            self._process = subprocess.Popen(  # noqa: S603 - our own command
                # Not by standard input: that is the tasks', and whoever reads it must find its end.
                [*command, *map(str, theirs)],
                stdin=subprocess.DEVNULL,
                process_group=0,
                pass_fds=theirs,
            )
        except BaseException:
            self.close()
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def ended(self) -> int | None:
        """Return its exit code, or (negative) the signal that ended it; None while it runs."""
        return self._process.poll()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, with whatever its tasks have started in its process group."""
        if self._process.poll() is None:
            for end in (os.kill, os.killpg):  # its tasks may have taken it out of its group
                with suppress(ProcessLookupError):
                    end(self.pid, signal.SIGKILL)

    def hear(self) -> list[Report]:
        """Return what it has told since the last call; `strange` is set where something was no report."""
        reports: list[Report] = []
        for _ in range(MOST_READS):
            if self.reports < 0:
                break
            try:
                data = os.read(self.reports, READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                os.close(self.reports)
                self.reports = -1
            found = heard(self._unread + data)
            self._unread = found.rest
            self.strange = self.strange or found.strange
            reports += found.reports
        return reports

    def recording(self) -> Recording | None:
        """Return what it has recorded, also after its end; None where that is no recording."""
        return None if self._memory is None else read(self._memory)

    def note_elsewhere(self, bits: int) -> None:
        """Let it know for which queues another process is idle."""
        if self._memory is not None:
            note_elsewhere(self._memory, self._slots, bits)

    def resident(self) -> int:
        """Return how many bytes of memory it holds, 0 where the system does not tell."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE
        except (OSError, ValueError, IndexError):
            return 0

    def close(self) -> None:
        """Let go of the pipes and the memory."""
        for descriptor in (self.reports, self._leash):
            if descriptor >= 0:
                os.close(descriptor)
        self.reports = self._leash = -1
        if self._memory is not None:
            self._memory.close()
            self._memory = None


def shared_memory(size: int) -> tuple[int, mmap.mmap]:
    """Return memory that has no name, and the descriptor by which another process maps it too."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("amqpworker", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, size)
        # Whoever reads mapped memory that was cut off meanwhile is killed by the kernel: that would be us.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, size)
    return descriptor, mmap.mmap(descriptor, size)
