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
from contextlib import suppress
from pathlib import Path

from amqpworker.ipc.descendants import CAN_ADOPT, MARK
from amqpworker.ipc.interpreter import command_of
from amqpworker.ipc.kernel import memory_file
from amqpworker.ipc.recorder import Recording, note_elsewhere, read, size_of
from amqpworker.ipc.report import Answers, Report, heard
from amqpworker.ipc.stray_signals import held_back
from amqpworker.ipc.version_check import OURS
from amqpworker.supervisor.pools import PoolSpec

__all__ = ["Child"]

# A process that writes without end must not keep us from hearing signals; a dead one's pipe holds less than this.
MOST_READS = 16
READ_BYTES = 65536
PAGE = os.sysconf("SC_PAGE_SIZE")


class Child:
    """
    A running worker process.

    `reports` is our end of the pipe that it tells of itself by, -1 once that has ended; the other pipe is its leash:
    `answers` go there, and its end shows the process that the supervisor has ended. It starts in `folder`, else in our
    current one.
    `waits` is what it waits for until it consumes, as it has reported.

    Raises:
        OSError: the machine has no room for another process or pipe, as it may have in a moment.
    """

    def __init__(self, spec: PoolSpec, folder: str | None = None) -> None:
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
            command = [*command_of("amqpworker.worker.process"), OURS, json.dumps(spec.options)]
            with held_back():
                self._process = subprocess.Popen(  # noqa: S603 - our own command
                    # Not by standard input: a task that reads that must find its end at once.
                    [*command, *map(str, theirs)],
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, MARK: "worker"},
                    process_group=0,
                    pass_fds=theirs,
                    # A symbolic link is followed each time; if it leads nowhere, our current folder is used.
                    cwd=folder if folder is not None and Path(folder).is_dir() else None,
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
        """End it at once; we become the parent of what its tasks have started, if the system supports that."""
        if self._process.poll() is None:
            for end in (os.kill,) if CAN_ADOPT else (os.kill, os.killpg):  # it may have left its group
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
    descriptor = memory_file("amqpworker", sealable=True)
    os.ftruncate(descriptor, size)
    # The kernel kills a process that reads mapped memory which was truncated meanwhile: that would be the supervisor.
    with suppress(OSError):  # a temporary file, which replaces it on some systems, cannot be sealed
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor, mmap.mmap(descriptor, size)
