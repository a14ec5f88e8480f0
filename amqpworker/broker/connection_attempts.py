"""
The attempts to connect to the addresses of a broker.

Decides how long to wait before the next round of addresses, which errors are permanent rather than an unreachable broker, and
which problems are worth another log line. It does no I/O.
"""

from __future__ import annotations

import random
from dataclasses import replace

from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.lifecycle import backoff

STABLE_AFTER = 5.0
FIRST_PAUSE = 0.2
MAX_PAUSE = 5.0
SHORTER_PAUSE = 0.3, 1.0
REPEAT_LOG_AFTER = 30.0


class ConnectionAttempts:
    """The attempts so far. With `user_reports_errors` the user of the connection reports permanent errors at its start."""

    def __init__(self, addresses: int, user_reports_errors: bool) -> None:
        self._addresses = addresses
        self._user_reports_errors = user_reports_errors
        self._failures = self._permanent_errors = 0
        self._opened_at = 0.0
        self._ever_open = False
        self._logged: tuple[str, float] = ("", 0.0)

    @property
    def is_failing(self) -> bool:
        """Whether the last connection was lost or could not be made."""
        return self._failures > 0

    def on_opened(self, now: float) -> None:
        """A connection is open."""
        self._opened_at = now
        self._ever_open = True
        self._permanent_errors = 0
        self._logged = ("", 0.0)

    def on_failed(self, problem: ConnectionProblem, now: float) -> None:
        """A connection was lost or could not be made; one that is lost as soon as it is open increases the backoff."""
        stable = problem.was_open and now - self._opened_at >= STABLE_AFTER
        self._failures = 1 if stable else self._failures + 1
        self._permanent_errors = self._permanent_errors + 1 if problem.kind != "unreachable" else 0

    def as_reported(self, problem: ConnectionProblem) -> ConnectionProblem:
        """Return the problem for its user: permanent only once every address has failed in this way."""
        return problem if self._permanent_errors >= self._addresses else replace(problem, kind="unreachable")

    def is_worth_logging(self, problem: ConnectionProblem, now: float) -> bool:
        """Return whether to log a problem: not if it was logged a moment ago, or if the user reports it."""
        text, at = self._logged
        permanent = problem.kind != "unreachable" and not self._ever_open
        if (permanent and self._user_reports_errors) or (problem.text == text and now < at + REPEAT_LOG_AFTER):
            return False
        self._logged = (problem.text, now)
        return True

    def pause(self) -> float:
        """Return the seconds until the next round of addresses, with jitter, so that a fleet does not reconnect at once."""
        return random.uniform(0, backoff(FIRST_PAUSE, MAX_PAUSE, self._failures))  # noqa: S311

    def shorter_pause(self) -> float:
        """Return the seconds if there is a message to send; not zero, since a busy sender would then connect all the time."""
        return random.uniform(*SHORTER_PAUSE)  # noqa: S311
