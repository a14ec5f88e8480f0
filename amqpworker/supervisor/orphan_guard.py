"""
Starts the orphan reaper, a small process that ends worker processes which survive a killed supervisor.

Decides when there is one: from the first worker process on, and a new one if it has died. It needs descriptors for processes
(Linux 5.3); without them a worker process that hangs in C survives its supervisor.

A timer inside the worker process (`faulthandler.dump_traceback_later`) is not enough: nothing would be left that could end
what its tasks have started, and it would also end a process whose supervisor lives. The reaper takes 5 MiB (PSS).
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
from amqpworker.supervisor import orphan_reaper

log = get_logger(__name__)

# Isolated from the app's folder and from all installed packages except this one; the comment is what `ps` shows.
PROGRAM = """import sys
sys.path.append(sys.argv[1])
from amqpworker.supervisor.orphan_reaper import main
main(int(sys.argv[2]))  # amqpworker/supervisor/orphan_reaper.py"""
FOLDER = str(Path(orphan_reaper.__file__).parents[2])
RETRY_PAUSE = 10.0
CLOSE_TIMEOUT = 5.0


class OrphanGuard:
    """Keeps an orphan reaper running and informed of the worker processes; none of its methods raises."""

    def __init__(self) -> None:
        self._reaper: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._sent: dict[int, float] = {}
        self._start_at = 0.0

    @property
    def pids(self) -> set[int]:
        """The process id of the reaper, if there is one."""
        return set() if self._reaper is None else {self._reaper.pid}

    def update(self, grace: dict[int, float]) -> None:
        """Send the current worker processes, and how many seconds each may survive the supervisor."""
        if self._reaper is not None and self._reaper.poll() is not None:
            log.warning("orphan_reaper_lost", pid=self._reaper.pid, effect="another is started")
            self._disconnect()
        if self._reaper is None and grace:
            self._start()
        if self._socket is None or grace == self._sent:
            return
        with suppress(OSError):  # the buffer is full, or the reaper is gone: the next update tries again
            self._socket.send(orphan_reaper.encode(grace))
            self._sent = dict(grace)

    def close(self) -> None:
        """End the reaper, once there are no worker processes any more."""
        reaper = self._reaper
        self._disconnect()
        if reaper is not None:
            with suppress(subprocess.TimeoutExpired):
                reaper.wait(CLOSE_TIMEOUT)

    def _start(self) -> None:
        now = time.monotonic()
        if now < self._start_at or not has_process_descriptors():
            return
        self._start_at = now + RETRY_PAUSE
        try:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._socket.setblocking(False)
            with theirs:
                self._reaper = subprocess.Popen(  # noqa: S603 - our own program
                    [sys.executable, "-I", "-S", "-c", PROGRAM, FOLDER, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    cwd="/",
                    start_new_session=True,
                )
        except OSError as error:
            self._disconnect()
            log.warning("orphan_reaper_not_started", reason=str(error), retry_in=RETRY_PAUSE)

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._reaper = self._socket = None
        self._sent = {}
