"""
A worker process's handle of an isolated process: a new interpreter that runs one task after the other.

Decides how it is started, when it counts as hung, and how its end is noticed. `outcomes` decides what its end means.
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from amqpworker.ipc.interpreter import VERSION_ARGUMENT, VERSION_MISMATCH, command_of
from amqpworker.ipc.kernel import ProcessEnd, memory_file
from amqpworker.ipc.stray_signals import DUMP_SIGNAL, stray_signals_blocked
from amqpworker.worker.isolation.crashes import Crash
from amqpworker.worker.isolation.leftovers import Leftovers
from amqpworker.worker.isolation.protocol import BEAT, OUTCOME, READY, SPENT, Frames, Unreadable
from amqpworker.worker.options import WorkerOptions

STEP = 1.0
# A socket cannot wait for just any time.
MOST_SENDING = 86_400.0
DUMP_PATIENCE = 0.2
DUMP_STEP = 0.01
MOST_STACK_BYTES = 64 * 1024
READ_BYTES = 1 << 18
KIB = 1024


@dataclass(frozen=True, slots=True)
class Arrived:
    """The expected frame, with its content."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Late:
    """The task has not ended in time; `stack` shows where it is."""

    stack: str


Ending: TypeAlias = Arrived | Late | Crash


class IsolatedProcess:
    """
    A running isolated process. One thread uses it at a time, but any may call `kill`.

    While a task runs, the process sends a heartbeat each second; without one for `stall_timeout` seconds, it counts as hung.
    It starts in `folder` (default: the current one), where its worker process found the app: a task may have left it since.

    Raises:
        OSError: the machine has no room for another process.
    """

    def __init__(self, options: WorkerOptions, folder: str | None = None) -> None:
        self.runs = 0
        self._is_ready = False
        self.spent = False
        """Whether it ends by itself after its present run, and accepts no further one."""
        self.idle_since = time.monotonic()
        self._stall_timeout = options.stall_timeout
        self._frames = Frames()
        self._socket, theirs = socket.socketpair()
        self._stacks = -1
        self._end: ProcessEnd | None = None
        self._ended: Crash | None = None
        self.leftovers = Leftovers()
        """The processes that its tasks have started, which end with it."""
        command = [*command_of("amqpworker.worker.isolation.program"), VERSION_ARGUMENT, options.model_dump_json()]
        try:
            with theirs, stray_signals_blocked():
                self._stacks = memory_file("amqpworker-stacks")
                descriptors = (theirs.fileno(), self._stacks)
                self._process = subprocess.Popen(  # noqa: S603 - our own command
                    [*command, *map(str, descriptors), str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    env=self.leftovers.environment(),
                    process_group=0,
                    pass_fds=descriptors,
                    cwd=folder,
                )
            # Its end of the pair may live on in a child that a task has forked meanwhile, so that no end is seen there.
            self._end = ProcessEnd(self._process.pid)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def outdated(self) -> bool:
        """Whether it has ended because another version of amqpworker is installed now."""
        return self._ended is not None and self._ended.code == VERSION_MISMATCH

    def alive(self) -> bool:
        """Return whether it runs; if it has ended, it is reaped."""
        if self._ended is None and self._has_ended():
            self._reap()
        return self._ended is None

    def wait_ready(self, timeout: float) -> bool:
        """Wait until it has imported the app and can run tasks; return false if it has ended, or is not ready in time."""
        if not self._is_ready:
            self._is_ready = self._listen(READY, timeout) == Arrived(b"")
        return self._is_ready

    def run(self, request: bytes, timeout: float) -> Ending:
        """Have it run a task, for at most `timeout` seconds."""
        os.ftruncate(self._stacks, 0)
        os.lseek(self._stacks, 0, os.SEEK_SET)
        self.runs += 1
        self.leftovers.on_run_started()
        try:
            self._socket.settimeout(min(self._stall_timeout, MOST_SENDING))
            self._socket.sendall(request)
        except OSError:
            return self._crash("it accepted no more requests")
        return self._listen(OUTCOME, timeout)

    def _listen(self, wanted: bytes, timeout: float) -> Ending:
        until = time.monotonic() + timeout
        # One more: its heartbeat of each second may arrive just after our own second.
        silent, most_silent = 0, math.ceil(self._stall_timeout / STEP) + 1
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        assert self._end is not None
        if self._end.descriptor >= 0:
            poll.register(self._end.descriptor, select.POLLIN)
        while (left := until - time.monotonic()) > 0:
            # In steps: time for which the machine itself was suspended does not count.
            ready = {found for found, _ in poll.poll(min(left, STEP) * 1000)}
            if self._socket.fileno() in ready:
                silent = 0
                ending = self._read(wanted)
                if ending is not None:
                    return ending
            elif ready or self._has_ended():
                return self._crash()
            else:
                silent += 1
                if silent >= most_silent and wanted == OUTCOME:
                    return self._crash(f"killed: it had made no progress for {silent * STEP:.0f} s")
        return Late(self._dumped())

    def _read(self, wanted: bytes) -> Ending | None:
        try:
            data = self._socket.recv(READ_BYTES)
            found = self._frames.feed(data)
        except (OSError, Unreadable) as error:
            return self._crash(f"killed: {error}")
        if not data:
            return self._crash()
        for kind, content in found:
            if kind == wanted:
                return Arrived(content)
            if kind == SPENT:
                self.spent = True
            elif kind != BEAT:
                return self._crash("killed: it did not respond to a request")
            else:
                self.leftovers.note_descendants(self.pid)
        return None

    # ---- how it ends ------------------------------------------------------------------------------------------------

    def dismiss(self) -> None:
        """Have it end by itself, so that it exits its lifespan; only while it is idle."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def wait_end(self, timeout: float) -> None:
        """Wait until it has ended."""
        self._has_ended(timeout)

    def _has_ended(self, timeout: float = 0.0) -> bool:
        return self._end is None or self._end.wait(timeout)

    def _crash(self, reason: str = "") -> Crash:
        """Return how it ended; if it has not, kill it, with this `reason`."""
        if reason:
            crash = self._reap(reason, self._dumped())
        else:
            # It has closed its socket: what is left of it ends now, or is ended.
            self._has_ended(STEP)
            crash = self._reap("", self._stack())
        self.leftovers.note_adopted()
        return crash

    def _reap(self, reason: str = "", stack: str = "") -> Crash:
        if self._ended is None:
            # Before it is reaped: until then no other process or group can have its id.
            self.leftovers.note_descendants(self.pid)
            self.kill()
            self.leftovers.note_group(self.pid)
            try:
                _, status, usage = os.wait4(self.pid, 0)
            except ChildProcessError:
                # Code of the app waits for any child, and has got this one.
                self._ended = Crash(None, 0, stack, reason)
            else:
                code = os.waitstatus_to_exitcode(status)
                self._ended = Crash(code, usage.ru_maxrss * KIB, stack, reason)
            self._process.returncode = self._ended.code or 0
        return self._ended

    def _dumped(self) -> str:
        """Have it write its stacks, and return them."""
        if not self._has_ended():
            with suppress(ProcessLookupError):
                os.kill(self.pid, DUMP_SIGNAL)
            pause, size = select.poll(), 0
            for _ in range(int(DUMP_PATIENCE / DUMP_STEP)):
                pause.poll(DUMP_STEP * 1000)
                before, size = size, os.fstat(self._stacks).st_size
                if size and size == before:
                    break
        return self._stack()

    def _stack(self) -> str:
        return os.pread(self._stacks, MOST_STACK_BYTES, 0).decode("utf-8", "replace")

    def kill(self) -> None:
        """Kill it at once; `close` ends the processes that its tasks have started."""
        if self._ended is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it and the processes that its tasks have started, wait until they have ended, and close everything."""
        if hasattr(self, "_process"):
            self._reap()
            self.leftovers.end(self.pid)
        self._socket.close()
        if self._stacks >= 0:
            os.close(self._stacks)
            self._stacks = -1
        if self._end is not None:
            self._end.close()
