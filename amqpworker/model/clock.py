"""The two clocks of a process as one value, so that tests can pass others."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple


class Clock(NamedTuple):
    """`now` returns seconds since the epoch; `monotonic` is for durations, and no correction of the time affects it."""

    now: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


CLOCK = Clock()
