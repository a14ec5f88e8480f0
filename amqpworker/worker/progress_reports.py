"""
What tasks report of their progress: the latest of each run, which is passed on at most twice a second.

Decides which reports are passed on. The last one is never lost: it is in the row of the result, and `flush` passes it on.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from amqpworker.worker.context import Reported, Run

MIN_INTERVAL = 0.5
"""Seconds between two reports of a run that are passed on."""


class ProgressReports:
    """Passes on reports with `put`, which gets the run and the JSON of its progress; safe to use from many threads."""

    def __init__(self, put: Callable[[Run, bytes], None], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._put = put
        self._monotonic = monotonic

    def report(self, run: Run, progress: bytes) -> None:
        """Note the latest progress of a run (JSON), and pass it on unless another one was passed on just before."""
        now, before = self._monotonic(), run.reported
        if before is not None and now - before.put_at < MIN_INTERVAL:
            run.reported = Reported(progress, before.put_at, is_put=False)
            return
        run.reported = Reported(progress, now, is_put=True)
        self._put(run, progress)

    def flush(self, run: Run) -> None:
        """Pass on the latest progress of a run, if it was not yet."""
        latest = run.reported
        if latest is not None and not latest.is_put:
            run.reported = latest._replace(is_put=True)
            self._put(run, latest.progress)
