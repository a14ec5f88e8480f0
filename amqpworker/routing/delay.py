"""
The route of a delayed message: the arithmetic of the delay ladder.

A delay is a whole number of units, and each of its bits is the wait in one level (see `topology.ladder`). Decides
where a message enters the ladder and with which headers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from amqpworker.errors import InvalidArguments
from amqpworker.model.headers import wait_header
from amqpworker.model.message import Headers
from amqpworker.routing.topology import LEVELS, UNIT, Names

MAX_DELAY = (2**LEVELS - 1) * UNIT
"""The longest delay of the ladder in seconds: 8.5 years."""

_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Route:
    """The exchange to publish a message to, and its headers for the levels of the ladder."""

    exchange: str
    headers: dict[str, bool]


def route(names: Names, delay: float, *, via_due: bool = False) -> Route:
    """
    Return the route that takes `delay` seconds, rounded up to whole units.

    Without a delay it is the exchange for new messages; with `via_due` the one for messages that were accepted before.
    """
    bits = units(delay)
    if not bits:
        return Route(names.due if via_due else names.tasks, {})
    top = bits.bit_length() - 1
    # The broker only checks whether a header is present; `true` is readable in its UI and takes one byte.
    headers: dict[str, bool] = {wait_header(level): True for level in range(top, -1, -1) if bits >> level & 1}
    return Route(names.level(top), headers)


def units(delay: float) -> int:
    """
    Return the number of units of a delay, rounded up.

    If it is at most 1 µs more than a whole number of units, it is rounded down: floats are not more exact (the difference
    of two times since the epoch is exact to 0.2 µs). So no message is more than 1 µs early. Raises InvalidArguments if the
    ladder does not have the delay.
    """
    if not 0 <= delay <= MAX_DELAY:
        raise InvalidArguments(f"delay={delay!r}: a delay is from 0 to {MAX_DELAY:.0f} seconds.")
    # Exact, since the unit is a power of two; so is the difference below, of two floats so close to each other.
    count = math.ceil(delay / UNIT)
    if count and delay - (count - 1) * UNIT <= _TOLERANCE:
        return count - 1
    return count


def longest_wait(level: int, headers: Headers) -> float:
    """Return the longest time in seconds that a message in this level still waits, by its headers for the levels below."""
    below = sum(1 << lower for lower in range(level) if wait_header(lower) in headers)
    return ((1 << level) + below) * UNIT


def clamp(seconds: float) -> float:
    """Return the nearest delay that the ladder has; 0 for NaN."""
    if math.isnan(seconds):
        return 0.0
    return float(min(max(seconds, 0.0), MAX_DELAY))
