"""
What several parts have to know about the life of a process: its forks, its threads, and who uses what right now.

Nothing here takes a lock. A signal handler or a finalizer may interrupt any line of its thread, and a forked child may
have been copied at any line of another one: what they need then must not be held by someone who never lets go of it.
"""

from __future__ import annotations

import errno
import os
import threading
import weakref
from _thread import get_ident
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = [
    "THREAD_LIMIT",
    "AppUsers",
    "LiveObjects",
    "ThreadLimitReached",
    "in_io_thread",
    "run_as_io_thread",
    "start_thread",
]

T = TypeVar("T")

THREAD_LIMIT = (
    "the limit of processes and threads is reached (ulimit -u, TasksMax= of a unit, --pids-limit of a container)"
)

# Not asked of `threading.current_thread`: after a fork that Python does not hear of, a new thread may be taken for one of
# the parent's, whose number it has.
HERE = threading.local()


def run_as_io_thread(run: Callable[[], None]) -> None:
    """Run all that this thread does as one that keeps a connection: it must not wait for a broker, or for itself."""
    HERE.keeps_connection = True
    run()


def in_io_thread() -> bool:
    """Tell whether the caller must not wait, since a connection depends on this thread."""
    return getattr(HERE, "keeps_connection", False)


class ThreadLimitReached(OSError):
    """The machine has no room for another thread, as it may have in a moment."""


def start_thread(thread: threading.Thread) -> None:
    """
    Start a thread.

    Raises:
        ThreadLimitReached: the limit of threads is reached.
    """
    try:
        thread.start()
    except RuntimeError as error:
        raise ThreadLimitReached(errno.EAGAIN, f"no thread can be started: {THREAD_LIMIT}") from error


class LiveObjects(Generic[T]):
    """
    The objects of one kind that are in use, for the one hook of their module; it keeps none of them alive.

    In place of a `weakref.WeakSet`, which may not be iterated while another thread, or a finalizer, adds to it.
    """

    def __init__(self) -> None:
        self._noted: dict[int, tuple[int, weakref.ref[T]]] = {}

    def add(self, one: T) -> None:
        """Note that it is there, until it is not."""
        key = id(one)
        noted = self._noted

        def gone(reference: weakref.ref[T]) -> None:
            # Its number may belong to another one by now.
            if key in noted and noted[key][1] is reference:
                del noted[key]

        noted[key] = (os.getpid(), weakref.ref(one, gone))

    def all(self) -> list[T]:
        """Return those that are there."""
        # A copy first: it is made in one step.
        return [one for _, reference in list(self._noted.values()) if (one := reference()) is not None]

    def of_this_process(self) -> list[T]:
        """Return those that this process has added, and did not inherit."""
        me = os.getpid()
        found = [reference() for process, reference in list(self._noted.values()) if process == me]
        return [one for one in found if one is not None]


class AppUsers:
    """
    Who uses an app in this process: the threads inside `with app:`, and a worker.

    A forked child has none: those of its parent are not there.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._threads: list[int] = []
        self._workers: list[object] = []

    def _here(self) -> list[int]:
        if self._process != os.getpid():
            self._threads, self._workers = [], []
            self._process = os.getpid()
        return self._threads

    def enter(self) -> None:
        """Note that this thread is inside."""
        self._here().append(get_ident())

    def leave(self) -> bool:
        """Note that this thread is inside no more; true for the last one out."""
        threads = self._here()
        try:
            threads.remove(get_ident())
        except ValueError:
            # Entered by another thread, as frameworks do that run each step in any thread of a pool.
            if threads:
                threads.pop()
        return not (threads or self._workers)

    @property
    def others(self) -> bool:
        """Whether anyone but this thread uses it."""
        threads, me = self._here(), get_ident()
        return bool(self._workers) or any(one != me for one in list(threads))

    def worker_started(self) -> None:
        """Note that a worker uses it, in whatever thread its tasks run."""
        self._here()
        self._workers.append(None)

    def worker_stopped(self) -> None:
        """Note that the worker uses it no more."""
        self._here()
        if self._workers:
            self._workers.pop()
