"""
Wake a thread that waits for file descriptors, from any other thread.

Decides nothing. An eventfd if the system has it: one system call to set it and one to clear it, however often it was set.
"""

from __future__ import annotations

import os
import select


class Waker:
    """A descriptor that becomes readable when it is set."""

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self.fd = self._write_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self.fd, self._write_fd = os.pipe()
            os.set_blocking(self.fd, False)
            os.set_blocking(self._write_fd, False)

    def set(self) -> None:
        """Make the descriptor readable; from any thread."""
        try:
            os.write(self._write_fd, b"\1\0\0\0\0\0\0\0")
        except BlockingIOError:
            return  # it is readable already

    def clear(self) -> None:
        """Make the descriptor unreadable again."""
        try:
            os.read(self.fd, 4096)
        except BlockingIOError:
            return

    def wait(self, timeout: float) -> bool:
        """Wait until it is set, at most `timeout` seconds, and clear it."""
        poller = select.poll()
        poller.register(self.fd, select.POLLIN)
        if not poller.poll(max(0.0, timeout) * 1000):
            return False
        self.clear()
        return True

    def __del__(self) -> None:
        # Not before: a thread that still has a reference would write to whatever has this number by then.
        for fd in {self.fd, self._write_fd}:
            os.close(fd)
