"""The options of `@app.task` about results: whether they are stored, for how long, and what is stored before a task has ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from amqpworker.errors import ConfigError, InvalidArguments
from amqpworker.policies.durations import duration


@dataclass(frozen=True, slots=True)
class ResultOptions:
    """
    Whether a task `stores` results, and for how many seconds (`ttl`, None for the setting `result_ttl`).

    With `tracks`, the store also has that a message was sent and that its task runs. With `dedupes`, a message does not run if
    the store has that its task is done.
    """

    stores: bool = True
    tracks: bool = False
    dedupes: bool = False
    ttl: float | None = None


def result_options(stores: bool, tracks: bool, dedupes: bool, ttl: float | timedelta | None) -> ResultOptions:
    """Check the options of a task about its results; raises ConfigError if they exclude each other, or `ttl` is not valid."""
    given = [
        name
        for name, value in (("track=True", tracks), ("dedupe=True", dedupes), ("result_ttl=…", ttl is not None))
        if value
    ]
    if given and not stores:
        raise ConfigError(f"result=False stores nothing, so it excludes {given[0]}: remove one of the two.")
    return ResultOptions(bool(stores), bool(tracks), bool(dedupes), None if ttl is None else _checked_ttl(ttl))


def _checked_ttl(ttl: float | timedelta) -> float:
    try:
        seconds = duration(ttl, "result_ttl")
    except InvalidArguments as error:
        raise ConfigError(str(error)) from None
    if seconds <= 0:
        raise ConfigError(
            f"result_ttl={ttl!r:.60}: results are kept for more than 0 seconds; result=False stores none."
        )
    return seconds
