"""
The messages that the threads of an inline test run at the moment.

Decides which of them a thread may wait for: not those whose tasks it is itself part of, since they wait for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from amqpworker.model.message import Publication


class InlineRun:
    """One message while it runs."""

    def __init__(self, publication: Publication) -> None:
        self.publication = publication


Runs: TypeAlias = tuple[InlineRun, ...]

_around: ContextVar[Runs] = ContextVar("the runs that this code is part of", default=())


class InlineRuns:
    """What runs, in all threads; `pop` removes the next message from its queue, None if there is none."""

    def __init__(self, pop: Callable[[], Publication | None]) -> None:
        self._pop = pop
        self._changed = threading.Condition()
        self._runs: Runs = ()

    def take(self) -> InlineRun | None:
        """Take the next message, None if there is none; for other threads it is in its queue until it is among the runs."""
        with self._changed:
            publication = self._pop()
            if publication is None:
                return None
            run = InlineRun(publication)
            self._runs += (run,)
            return run

    @contextmanager
    def inside(self, run: InlineRun) -> Iterator[None]:
        """Mark the code of a block, and the coroutines that it starts, as part of a run, which ends with the block."""
        _around.set((*_around.get(), run))
        try:
            yield
        finally:
            with self._changed:
                self._runs = tuple(one for one in self._runs if one is not run)
                self._changed.notify_all()

    def elsewhere(self) -> Runs:
        """Return what runs in other threads and is not waiting for this one."""
        around = _around.get()
        return tuple(one for one in self._runs if one not in around)

    def wait_for_end(self, runs: Runs, seconds: float | None = None) -> None:
        """Wait until one of several runs has ended, or the seconds are over."""
        with self._changed:
            self._changed.wait_for(lambda: any(one not in self._runs for one in runs), seconds)
