"""
The attempts to connect to the addresses of a broker.

Decides how long to wait before the next round of addresses, what is a mistake rather than a broker that is away, and which
problems are worth another line in the log. No socket and no thread; the time is passed in.
"""

from __future__ import annotations

from dataclasses import replace

from tenacity import RetryCallState, Retrying, wait_random, wait_random_exponential
from tenacity.wait import wait_base

from amqpworker.broker.connection_errors import ConnectionProblem

__all__ = ["Attempts"]

STEADY = 5.0
LONGEST_PAUSE = 5.0
SAY_AGAIN = 30.0
PAUSE = wait_random_exponential(multiplier=0.2, max=LONGEST_PAUSE)
HURRY = wait_random(0.3, 1.0)


class Attempts:
    """What came of the attempts so far. With `mistakes_told` the user of the connection reports mistakes at its start."""

    def __init__(self, addresses: int, mistakes_told: bool) -> None:
        self._addresses = addresses
        self._mistakes_told = mistakes_told
        self._failures = self._mistakes = 0
        self._opened_at = 0.0
        self._ever_open = False
        self._logged: tuple[str, float] = ("", 0.0)

    @property
    def failing(self) -> bool:
        """Whether the last connection ended, or could not be made."""
        return self._failures > 0

    def opened(self, now: float) -> None:
        """Note that a connection is open."""
        self._opened_at = now
        self._ever_open = True
        self._mistakes = 0
        self._logged = ("", 0.0)

    def failed(self, problem: ConnectionProblem, now: float) -> None:
        """Note a problem; a connection that ends as soon as it is open is a failure too, and not a reason to hurry."""
        steady = problem.was_open and now - self._opened_at >= STEADY
        self._failures = 1 if steady else self._failures + 1
        self._mistakes = self._mistakes + 1 if problem.kind != "away" else 0

    def judged(self, problem: ConnectionProblem) -> ConnectionProblem:
        """Return the problem as its user is to see it: no mistake as long as another address may be right."""
        return problem if self._mistakes >= self._addresses else replace(problem, kind="away")

    def is_worth_a_line(self, problem: ConnectionProblem, now: float) -> bool:
        """Tell whether a problem is to be logged: not if it was a moment ago, or if the user reports it."""
        text, at = self._logged
        mistake = problem.kind != "away" and not self._ever_open
        if (mistake and self._mistakes_told) or (problem.text == text and now < at + SAY_AGAIN):
            return False
        self._logged = (problem.text, now)
        return True

    def pause(self) -> float:
        """Return the seconds until the next round of addresses, with jitter, so that a fleet does not come back at once."""
        return seconds_of(PAUSE, self._failures)

    def shorter_pause(self) -> float:
        """Return the seconds if there is a message to send; not zero, or who sends all the time would connect all the time."""
        return seconds_of(HURRY, self._failures)


def seconds_of(pause: wait_base, failures: int) -> float:
    """Return what a policy of tenacity says after this many failures."""
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = max(1, failures)
    return float(pause(state))
