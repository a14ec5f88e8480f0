"""Who uses an app, so that it is closed by the last one; takes no lock, for the reasons of `lifecycle`."""

from __future__ import annotations

import _thread
import os


class AppUsers:
    """
    Who uses an app in this process: the threads inside `with app:`, and a worker.

    A forked child starts without any: its parent's threads do not exist there.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._threads: list[int] = []
        self._workers = 0

    def enter(self) -> None:
        """Add this thread."""
        self._reset_if_forked()
        self._threads.append(_thread.get_ident())

    def leave(self) -> bool:
        """Remove this thread; return whether nothing uses the app any more."""
        self._reset_if_forked()
        try:
            self._threads.remove(_thread.get_ident())
        except ValueError:
            # Another thread entered: some frameworks run each step in any thread of a pool.
            if self._threads:
                self._threads.pop()
        return not (self._threads or self._workers)

    @property
    def has_others(self) -> bool:
        """Whether a worker or another thread uses the app."""
        self._reset_if_forked()
        me = _thread.get_ident()
        return bool(self._workers) or any(thread != me for thread in list(self._threads))

    def worker_started(self) -> None:
        """Add a worker, which runs its tasks in any thread."""
        self._reset_if_forked()
        self._workers += 1

    def worker_stopped(self) -> None:
        """Remove a worker."""
        self._reset_if_forked()
        self._workers = max(0, self._workers - 1)

    def _reset_if_forked(self) -> None:
        if self._process != os.getpid():
            self._threads, self._workers = [], 0
            self._process = os.getpid()
