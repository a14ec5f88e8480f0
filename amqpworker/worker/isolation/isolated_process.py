"""
A worker process's handle of an isolated process: a new interpreter that runs one task after the other.

Decides how it is started, when it counts as hung, and how its end is noticed.
"""

from __future__ import annotations

import math
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from amqpworker.ipc.exit_status import describe_exit
from amqpworker.ipc.interpreter import VERSION_ARGUMENT, VERSION_MISMATCH, command_of
from amqpworker.ipc.kernel import ProcessEnd, memory_file
from amqpworker.ipc.stray_signals import DUMP_SIGNAL, stray_signals_blocked
from amqpworker.worker.isolation.leftovers import Leftovers
from amqpworker.worker.isolation.protocol import (
    BEAT,
    CANCELLED_FLAG,
    OUTCOME,
    PROGRESS,
    READY,
    SPENT,
    Frames,
    Unreadable,
)
from amqpworker.worker.options import WorkerOptions

POLL_SECONDS = 1.0
# The timeout of a socket has an upper limit.
MAX_SEND_SECONDS = 86_400.0
DUMP_PATIENCE = 0.2
DUMP_STEP = 0.01
MAX_STACK_BYTES = 64 * 1024
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


@dataclass(frozen=True, slots=True)
class Crash:
    """
    How an isolated process ended while it ran a task.

    `code` is its exit code, or (negative) the signal that ended it, None if that is unknown. `memory` is the most bytes that
    it used, `stack` where it was, if that is known, and `reason` why it was killed, if we killed it.
    """

    code: int | None
    memory: int = 0
    stack: str = ""
    reason: str = ""

    @property
    def how(self) -> str:
        """How it ended, in few words."""
        return "an unknown exit code" if self.code is None else describe_exit(self.code)


Answer: TypeAlias = Arrived | Late | Crash


class IsolatedProcess:
    """
    A running isolated process. One thread uses it at a time, but any may call `kill`.

    While a task runs, the process sends a heartbeat each second; without one for `stall_timeout` seconds, it counts as hung.
    It starts in `folder` (default: the current one), where its worker process found the app: a task may have left it since.
    """

    def __init__(self, options: WorkerOptions, folder: str | None = None) -> None:
        self.runs = 0
        self._is_ready = False
        self.spent = False
        """Whether it ends by itself after its present run, and accepts no further one."""
        self.idle_since = time.monotonic()
        self.killed_by_cancel = False
        """Whether it is killed because its task is cancelled with force."""
        self._on_progress: Callable[[bytes], None] = lambda _: None
        self._stall_timeout = options.stall_timeout
        self._frames = Frames()
        self._socket, theirs = socket.socketpair()
        self._stacks = -1
        self._cancel_flag = -1
        self._exit_watch: ProcessEnd | None = None
        self._exit: Crash | None = None
        self.leftovers = Leftovers()
        """The processes that its tasks have started, which end with it."""
        command = [*command_of("amqpworker.worker.isolation.program"), VERSION_ARGUMENT, options.model_dump_json()]
        try:
            with theirs, stray_signals_blocked():
                self._stacks = memory_file("amqpworker-stacks")
                self._cancel_flag = memory_file("amqpworker-cancelled")
                descriptors = (theirs.fileno(), self._stacks, self._cancel_flag)
                self._process = subprocess.Popen(  # noqa: S603 - our own command
                    [*command, *map(str, descriptors), str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    env=self.leftovers.environment(),
                    process_group=0,
                    pass_fds=descriptors,
                    cwd=folder,
                )
            # Its end of the pair may live on in a child that a task has forked meanwhile, so that no end is seen there.
            self._exit_watch = ProcessEnd(self._process.pid)
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
        return self._exit is not None and self._exit.code == VERSION_MISMATCH

    def alive(self) -> bool:
        """Return whether it runs; if it has ended, it is reaped."""
        if self._exit is None and self.exited():
            self._reap()
        return self._exit is None

    def wait_ready(self, timeout: float) -> bool:
        """Wait until it has imported the app and can run tasks; return false if it has ended, or is not ready in time."""
        if not self._is_ready:
            self._is_ready = self._listen(READY, timeout) == Arrived(b"")
        return self._is_ready

    def run(self, request: bytes, timeout: float, on_progress: Callable[[bytes], None] = lambda _: None) -> Answer:
        """Have it run a task, for at most `timeout` seconds; `on_progress` is called with what the task reports."""
        self._on_progress = on_progress
        os.ftruncate(self._stacks, 0)
        os.lseek(self._stacks, 0, os.SEEK_SET)
        self.runs += 1
        self.leftovers.on_run_started()
        try:
            self._socket.settimeout(min(self._stall_timeout, MAX_SEND_SECONDS))
            self._socket.sendall(request)
        except OSError:
            return self._crashed("it accepted no more requests")
        return self._listen(OUTCOME, timeout)

    def _listen(self, wanted: bytes, timeout: float) -> Answer:
        until = time.monotonic() + timeout
        # One step more: a heartbeat, sent once per second, may arrive just after the end of a step.
        silent, most_silent = 0, math.ceil(self._stall_timeout / POLL_SECONDS) + 1
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        assert self._exit_watch is not None
        if self._exit_watch.descriptor >= 0:
            poll.register(self._exit_watch.descriptor, select.POLLIN)
        while (left := until - time.monotonic()) > 0:
            # In steps: time for which the machine itself was suspended does not count.
            ready = {found for found, _ in poll.poll(min(left, POLL_SECONDS) * 1000)}
            if self._socket.fileno() in ready:
                silent = 0
                answer = self._read(wanted)
                if answer is not None:
                    return answer
            elif ready or self.exited():
                return self._crashed()
            else:
                silent += 1
                if silent >= most_silent and wanted == OUTCOME:
                    return self._crashed(f"killed: it had made no progress for {silent * POLL_SECONDS:.0f} s")
        return Late(self._dumped())

    def _read(self, wanted: bytes) -> Answer | None:
        try:
            data = self._socket.recv(READ_BYTES)
            found = self._frames.feed(data)
        except (OSError, Unreadable) as error:
            return self._crashed(f"killed: {error}")
        if not data:
            return self._crashed()
        for kind, content in found:
            if kind == wanted:
                return Arrived(content)
            if kind == SPENT:
                self.spent = True
            elif kind == PROGRESS:
                self._on_progress(content)
            elif kind != BEAT:
                return self._crashed("killed: it did not respond to a request")
            else:
                self.leftovers.note_descendants(self.pid)
        return None

    def show_cancelled(self, cancelled: bool) -> None:
        """Set what `current().cancelled` is in its present run, or its next one."""
        if cancelled:
            os.pwrite(self._cancel_flag, CANCELLED_FLAG, 0)
        else:
            os.ftruncate(self._cancel_flag, 0)

    # ---- how it ends ------------------------------------------------------------------------------------------------

    def dismiss(self) -> None:
        """Have it end by itself, so that it exits its lifespan; only while it is idle."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def exited(self, timeout: float = 0.0) -> bool:
        """Wait until it has ended, at most `timeout` seconds; return whether it has."""
        return self._exit_watch is None or self._exit_watch.wait(timeout)

    def _crashed(self, reason: str = "") -> Crash:
        """Return how it ended; if it has not, kill it, with this `reason`."""
        if reason:
            crash = self._reap(reason, self._dumped())
        else:
            # It has closed its socket: what is left of it ends now, or is ended.
            self.exited(POLL_SECONDS)
            crash = self._reap("", self._stack())
        self.leftovers.note_adopted()
        return crash

    def _reap(self, reason: str = "", stack: str = "") -> Crash:
        if self._exit is None:
            # Before it is reaped: until then no other process or group can have its id.
            self.leftovers.note_descendants(self.pid)
            self.kill()
            self.leftovers.note_group(self.pid)
            try:
                _, status, usage = os.wait4(self.pid, 0)
            except ChildProcessError:
                # Code of the app waits for any child, and has got this one.
                self._exit = Crash(None, 0, stack, reason)
            else:
                code = os.waitstatus_to_exitcode(status)
                self._exit = Crash(code, usage.ru_maxrss * KIB, stack, reason)
            self._process.returncode = self._exit.code or 0
        return self._exit

    def _dumped(self) -> str:
        if not self.exited():
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
        return os.pread(self._stacks, MAX_STACK_BYTES, 0).decode("utf-8", "replace")

    def kill(self) -> None:
        """Kill it at once; `close` ends the processes that its tasks have started."""
        if self._exit is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it and the processes that its tasks have started, wait until they have ended, and close everything."""
        if hasattr(self, "_process"):
            self._reap()
            self.leftovers.end(self.pid)
        self._socket.close()
        for descriptor in (self._stacks, self._cancel_flag):
            if descriptor >= 0:
                os.close(descriptor)
        self._stacks = self._cancel_flag = -1
        if self._exit_watch is not None:
            self._exit_watch.close()
