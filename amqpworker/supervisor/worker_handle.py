"""
The supervisor's handle of a worker process: the process, two pipes, and the shared memory that it records in.

Decides how a process is started: a new interpreter in a process group of its own.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from amqpworker.ipc.descendants import CAN_ADOPT, MARK
from amqpworker.ipc.kernel import memory_file
from amqpworker.ipc.pipes import CommandWriter, Report, parse_reports
from amqpworker.ipc.recorder import Recording, read_recording, record_idle_elsewhere, size_of
from amqpworker.ipc.stray_signals import stray_signals_blocked
from amqpworker.ipc.worker_arguments import WorkerArguments
from amqpworker.supervisor.pools import PoolSpec

# A process that writes without end must not keep the supervisor from handling signals; a full pipe holds less than this.
MAX_READS = 16
READ_BYTES = 65536
PAGE = os.sysconf("SC_PAGE_SIZE")


class WorkerHandle:
    """
    A running worker process; raises OSError if the system has no room for another one or a pipe.

    `reports` is the reading end of the pipe for its reports, which have ended if `reports_ended`. `commands` writes to the other
    pipe; the process ends when that is closed, since its supervisor has ended. It starts in `folder`, if that exists, else in the
    current folder. As it has reported, `waits` is what it waits for until it consumes, `leading` which scheduler leads, `unknown`
    how many messages wait of which tasks that it does not know, and `paused` what of it is paused; `garbled` if it has written
    other lines.
    """

    def __init__(self, spec: PoolSpec, folder: str | None = None) -> None:
        self.garbled = self.reports_ended = False
        self.waits = ""
        self.paused: tuple[str, ...] = ()
        self.unknown: Mapping[str, int] = {}
        self.leading = Report("leading")
        self._slots = spec.slots
        self._unread = b""
        with ExitStack() as theirs, ExitStack() as ours:
            commanded, commands_end = _pipe(theirs, ours)
            self.reports, reporting = _pipe(ours, theirs)
            os.set_blocking(self.reports, False)
            self.commands = CommandWriter(commands_end)
            recording, self._memory = shared_memory(size_of(spec.slots))
            theirs.callback(os.close, recording)
            ours.callback(self._memory.close)
            descriptors = commanded, reporting, recording
            arguments = WorkerArguments(json.dumps(spec.options), *descriptors)
            with stray_signals_blocked():
                self.process = subprocess.Popen(  # noqa: S603 - our own command
                    arguments.command(spec.program),
                    # The options are not written here: a task that reads standard input must reach its end at once.
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, MARK: "worker"},
                    process_group=0,
                    pass_fds=descriptors,
                    # A symbolic link is followed at each start.
                    cwd=folder if folder is not None and Path(folder).is_dir() else None,
                )
            self._ours = ours.pop_all()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def kill(self) -> None:
        """Kill it; the supervisor adopts the processes that its tasks have started, if the system supports that."""
        if self.process.poll() is None:
            for kill in (os.kill,) if CAN_ADOPT else (os.kill, os.killpg):  # it may have left its group
                with suppress(ProcessLookupError):
                    kill(self.pid, signal.SIGKILL)

    def read_reports(self) -> list[Report]:
        """Return its reports since the last call."""
        reports: list[Report] = []
        for _ in range(MAX_READS):
            if self.reports_ended:
                break
            try:
                data = os.read(self.reports, READ_BYTES)
            except BlockingIOError:
                break
            self.reports_ended = not data
            found = parse_reports(self._unread + data)
            self._unread = found.rest
            self.garbled = self.garbled or found.garbled
            reports += found.reports
        return reports

    def recording(self) -> Recording | None:
        """Return what it has recorded, also after its end; None if that is not a recording."""
        return read_recording(self._memory)

    def record_idle_elsewhere(self, bits: int) -> None:
        """Write into its memory for which queues another process is idle."""
        record_idle_elsewhere(self._memory, self._slots, bits)

    def resident_bytes(self) -> int:
        """Return the bytes of memory that it holds, 0 if the system does not show them."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE
        except (OSError, ValueError, IndexError):
            return 0

    def close(self) -> None:
        """Close the pipes and the memory."""
        self._ours.close()


def _pipe(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    """Return the reading and the writing end of a pipe; each stack closes one."""
    reading, writing = os.pipe()
    reader.callback(os.close, reading)
    writer.callback(os.close, writing)
    return reading, writing


def shared_memory(size: int) -> tuple[int, mmap.mmap]:
    """Return unnamed memory, and the descriptor with which another process maps it."""
    descriptor = memory_file("amqpworker", sealable=True)
    os.ftruncate(descriptor, size)
    # The kernel kills a process that reads mapped memory after it was truncated: here, the supervisor.
    with suppress(OSError):  # on some systems it is a temporary file, which cannot be sealed
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor, mmap.mmap(descriptor, size)
