"""
What several parts need to know about a process: its threads, its forks, and objects with a hook for either.

Nothing here takes a lock. A signal handler or a finalizer may interrupt any line of its thread, and a process may be forked
while another thread is at any line: a lock that they need might never be released.
"""

from __future__ import annotations

import errno
import os
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
_of_thread = threading.local()


def run_as_io_thread(run: Callable[[], None]) -> None:
    """Mark this thread as an I/O thread, then call `run` for as long as it takes."""
    _of_thread.is_io_thread = True
    run()


def in_io_thread() -> bool:
    """Return whether the caller must not wait, since a connection depends on its thread."""
    return getattr(_of_thread, "is_io_thread", False)


class ThreadLimitReached(OSError):
    """The system refuses another thread; it may allow one in a moment."""


def start_thread(thread: threading.Thread) -> None:
    """Start a thread; raises ThreadLimitReached if the system refuses another one."""
    try:
        thread.start()
    except RuntimeError as error:
        raise ThreadLimitReached(errno.EAGAIN, f"no thread can be started: {THREAD_LIMIT}") from error


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
