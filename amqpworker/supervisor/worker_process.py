"""
The supervisor's handle of a worker process: the process, two pipes, and the shared memory that it records in.

Decides how a process is started: a new interpreter in a process group of its own. Reports are passed on as they are.
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
from amqpworker.ipc.kernel import memory_file
from amqpworker.ipc.recorder import Recording, read_recording, record_idle_elsewhere, size_of
from amqpworker.ipc.report import CommandWriter, Report, parse_reports
from amqpworker.ipc.stray_signals import stray_signals_blocked
from amqpworker.ipc.worker_arguments import WorkerArguments
from amqpworker.supervisor.pools import PoolSpec

# A process that writes without end must not keep the supervisor from handling signals; a full pipe holds less than this.
MAX_READS = 16
READ_BYTES = 65536
PAGE = os.sysconf("SC_PAGE_SIZE")


class WorkerHandle:
    """
    A running worker process.

    `reports` is the reading end of the pipe for its reports, -1 once that is closed. `commands` writes to the other pipe, whose
    end shows the process that the supervisor has ended. It starts in `folder`, if that exists, else in the current folder.
    `waits` is what it waits for until it consumes, as it has reported; `garbled` if it has written something else than reports.

    Raises:
        OSError: the system has no room for another process or pipe; it may have later.
    """

    def __init__(self, spec: PoolSpec, folder: str | None = None) -> None:
        theirs: list[int] = []
        self.garbled = False
        self.waits = ""
        self._slots = spec.slots
        self._unread = b""
        self.reports = self._commands_end = -1
        self._memory: mmap.mmap | None = None
        try:
            commanded, self._commands_end = os.pipe()
            theirs.append(commanded)
            self.reports, reporting = os.pipe()
            theirs.append(reporting)
            os.set_blocking(self.reports, False)
            self.commands = CommandWriter(self._commands_end)
            recording, self._memory = shared_memory(size_of(spec.slots))
            theirs.append(recording)
            arguments = WorkerArguments(json.dumps(spec.options), commanded, reporting, recording)
            with stray_signals_blocked():
                self._process = subprocess.Popen(  # noqa: S603 - our own command
                    # Not by standard input: a task that reads it must get its end at once.
                    arguments.command(),
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, MARK: "worker"},
                    process_group=0,
                    pass_fds=theirs,
                    # A symbolic link is followed at each start.
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

    def poll(self) -> int | None:
        """Return its exit code, or (negative) the signal that ended it; None while it runs."""
        return self._process.poll()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill it; the supervisor adopts the processes that its tasks have started, if the system supports that."""
        if self._process.poll() is None:
            for kill in (os.kill,) if CAN_ADOPT else (os.kill, os.killpg):  # it may have left its group
                with suppress(ProcessLookupError):
                    kill(self.pid, signal.SIGKILL)

    def read_reports(self) -> list[Report]:
        """Return its reports since the last call."""
        reports: list[Report] = []
        for _ in range(MAX_READS):
            if self.reports < 0:
                break
            try:
                data = os.read(self.reports, READ_BYTES)
            except BlockingIOError:
                break
            if not data:
                os.close(self.reports)
                self.reports = -1
            found = parse_reports(self._unread + data)
            self._unread = found.rest
            self.garbled = self.garbled or found.garbled
            reports += found.reports
        return reports

    def recording(self) -> Recording | None:
        """Return what it has recorded, also after its end; None if that is not a recording."""
        return None if self._memory is None else read_recording(self._memory)

    def record_idle_elsewhere(self, bits: int) -> None:
        """Write into its memory for which queues another process is idle."""
        if self._memory is not None:
            record_idle_elsewhere(self._memory, self._slots, bits)

    def resident_bytes(self) -> int:
        """Return the bytes of memory that it holds, 0 if the system does not show them."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE
        except (OSError, ValueError, IndexError):
            return 0

    def close(self) -> None:
        """Close the pipes and the memory."""
        for descriptor in (self.reports, self._commands_end):
            if descriptor >= 0:
                os.close(descriptor)
        self.reports = self._commands_end = -1
        if self._memory is not None:
            self._memory.close()
            self._memory = None


def shared_memory(size: int) -> tuple[int, mmap.mmap]:
    """Return unnamed memory, and the descriptor with which another process maps it."""
    descriptor = memory_file("amqpworker", sealable=True)
    os.ftruncate(descriptor, size)
    # The kernel kills a process that reads mapped memory after it was truncated: here, the supervisor.
    with suppress(OSError):  # on some systems it is a temporary file, which cannot be sealed
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor, mmap.mmap(descriptor, size)
