"""
What is to become of the worker processes where their supervisor is killed: told to an `heir`, a process of its own.

Decides when there is an heir: from the first worker process on, and another where it is gone. Where the system has no
descriptors for processes (Linux before 5.3, others) there is none: a process that hangs in C then survives.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from amqpworker.ipc.kernel import has_process_descriptors
from amqpworker.log.logger import get_logger
from amqpworker.supervisor import heir

__all__ = ["Will"]

log = get_logger(__name__)

# Isolated from the app's folder and from installed packages but this one; the comment in its last line is for readers of `ps`.
PROGRAM = """import sys
sys.path.append(sys.argv[1])
from amqpworker.supervisor.heir import main
main(int(sys.argv[2]))  # amqpworker/supervisor/heir.py"""
FOLDER = str(Path(heir.__file__).parents[2])
PAUSE = 10.0
CLOSE_TIMEOUT = 5.0


class Will:
    """Keeps an heir informed of the processes that there are; nothing of it fails."""

    def __init__(self) -> None:
        self._heir: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._told: dict[int, float] = {}
        self._start_at = 0.0

    @property
    def pids(self) -> set[int]:
        """The process id of the heir, if there is one."""
        return set() if self._heir is None else {self._heir.pid}

    def update(self, patience: dict[int, float]) -> None:
        """Tell which processes there are, and for how many seconds each may survive us."""
        if self._heir is not None and self._heir.poll() is not None:
            log.warning("heir_lost", pid=self._heir.pid, effect="another is started")
            self._let_go()
        if self._heir is None and patience:
            self._start()
        if self._line is None or patience == self._told:
            return
        with suppress(OSError):  # full, or gone: it is told the next time
            self._line.send(heir.encode(patience))
            self._told = dict(patience)

    def close(self) -> None:
        """End the heir, where there is no process any more."""
        started = self._heir
        self._let_go()
        if started is not None:
            with suppress(subprocess.TimeoutExpired):
                started.wait(CLOSE_TIMEOUT)

    def _start(self) -> None:
        now = time.monotonic()
        if now < self._start_at or not has_process_descriptors():
            return
        self._start_at = now + PAUSE
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            not_started(error)
            return
        with theirs:
            try:
                self._heir = subprocess.Popen(  # noqa: S603 - our own program
                    [sys.executable, "-I", "-S", "-c", PROGRAM, FOLDER, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    cwd="/",
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                not_started(error)
                return
        ours.setblocking(False)
        self._line = ours

    def _let_go(self) -> None:
        if self._line is not None:
            self._line.close()
        self._heir = self._line = None
        self._told = {}


def not_started(error: OSError) -> None:
    """Tell why there is no heir for now."""
    log.warning("heir_not_started", reason=str(error), again_in=PAUSE)
