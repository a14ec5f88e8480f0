"""Wait for a condition, in tests and for a node's processes: no longer than needed, and never without a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

INTERVAL = 0.02


def wait_until(condition: Callable[[], T], timeout: float = 10.0, what: str = "") -> T:
    """
    Call `condition` until it returns something true, and return that.

    Raises:
        AssertionError: the timeout is over; names `what`, or the condition, and its last value.
    """
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() >= deadline:
            name = what or getattr(condition, "__name__", repr(condition))
            raise AssertionError(f"Not within {timeout:g} s: {name} (the last value was {value!r}).")
        time.sleep(INTERVAL)
    return value


def is_true_within(timeout: float, condition: Callable[[], bool]) -> bool:
    """Call `condition` until it is true; return false if the timeout is over first."""
    try:
        return wait_until(condition, timeout)
    except AssertionError:
        return False
