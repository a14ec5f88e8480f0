"""A policy's decisions, asked for as the runner asks: after a run that failed, at a time that is fixed."""

from __future__ import annotations

from amqpworker.policies.retry import Policy, RunInfo

NOW = 1_800_000_000.0
ERROR = OSError("no route")


def run(attempt: int = 1, since: float = 0.0) -> RunInfo:
    return RunInfo(attempt, NOW - since, NOW)


def waits(asked: Policy, error: BaseException = ERROR, most: int = 50) -> list[float]:
    """Fail with `error` until the policy gives up, and return the waits."""
    decided = []
    for attempt in range(1, most + 1):
        wait = asked.decide(error, run(attempt))
        if wait is None:
            break
        decided.append(wait)
    return decided
