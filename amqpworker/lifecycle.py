"""
What several parts need to know about a process: its threads and forks, and how long to wait after failures.

Nothing here takes a lock. A signal handler or a finalizer may interrupt any line of its thread, and a process may be forked
while another thread is at any line: a lock that they need might never be released.
"""

from __future__ import annotations

import errno
import os
import select
import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

THREAD_LIMIT = (
    "the limit of processes and threads is reached (ulimit -u, TasksMax= of a unit, --pids-limit of a container)"
)

# Not an attribute of `threading.current_thread()`: after a fork in C that Python does not know of, that may return the object
# of a parent's thread with the same number.
# One per class: gevent may replace `threading.local` after this import, and the original does not distinguish its greenlets.
_of_thread: dict[type, threading.local] = {}


def _marks() -> threading.local:
    kind = threading.local
    return _of_thread.get(kind) or _of_thread.setdefault(kind, kind())


def run_as_io_thread(run: Callable[[], None]) -> None:
    """Mark this thread as an I/O thread, then call `run` for as long as it takes."""
    _marks().is_io_thread = True
    run()


def in_io_thread() -> bool:
    """Return whether the caller must not wait, since a connection depends on its thread."""
    return getattr(_marks(), "is_io_thread", False)


class ThreadLimitReached(OSError):
    """The system refuses another thread; it may allow one in a moment."""


def start_thread(thread: threading.Thread) -> None:
    """Start a thread; raises ThreadLimitReached if the system refuses another one."""
    try:
        thread.start()
    except RuntimeError as error:
        raise ThreadLimitReached(errno.EAGAIN, f"no thread can be started: {THREAD_LIMIT}") from error


def backoff(first: float, longest: float, failures: int) -> float:
    """Return the seconds to wait after this many failures in a row: `first`, doubled by each further one; 0 without any."""
    return min(longest, first * 2.0 ** min(failures - 1, 64)) if failures > 0 else 0.0


class LiveObjects(Generic[T]):
    """
    The objects of one kind that exist, for the one fork or exit hook of their module; it holds weak references only.

    Not a `weakref.WeakSet`, which may not be iterated while another thread or a finalizer adds to it.
    """

    def __init__(self) -> None:
        self._added: dict[int, tuple[int, weakref.ref[T]]] = {}

    def add(self, item: T) -> None:
        """Add an object until it is deleted."""
        key = id(item)
        added = self._added

        def on_deleted(reference: weakref.ref[T]) -> None:
            # Another object may have the same id by now.
            if key in added and added[key][1] is reference:
                del added[key]

        added[key] = (os.getpid(), weakref.ref(item, on_deleted))

    def all(self) -> list[T]:
        """Return the objects that exist."""
        # A copy first: it is made in one step.
        return [item for _, reference in list(self._added.values()) if (item := reference()) is not None]

    def of_this_process(self) -> list[T]:
        """Return the objects that this process added itself, without inherited ones."""
        me = os.getpid()
        found = [reference() for process, reference in list(self._added.values()) if process == me]
        return [item for item in found if item is not None]


class Waker:
    """
    Wakes a thread that waits for file descriptors: its descriptor becomes readable when it is set.

    An eventfd if the system has it: one system call to set it and one to clear it, however often it was set.
    """

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
