"""
How long a message waits for a worker that knows its task: during a deploy some workers run older code than its sender.

Decides when it is delivered again, and when it has waited for long enough. What a worker does not know, `worker.executor`
finds out.
"""

from __future__ import annotations

from dataclasses import dataclass

# Powers of two units of the delay ladder: each costs one level, whose queue a message goes through.
SHORTEST = 4.0
LONGEST = 64.0
PATIENCE = 600.0
# A wait that ended this much too soon, by the clock of another host, counts as a whole one.
TOLERANCE = 0.5


@dataclass(frozen=True, slots=True)
class UnknownWait:
    """The next wait of a message, in seconds, and `since` when (milliseconds since the epoch) it waits for a worker."""

    delay: float
    since: int


def next_wait(since: int | None, now: float) -> UnknownWait | None:
    """
    Return the next wait of a message that a worker does not know, `None` if it has waited for ten minutes.

    `since` is when a worker first did not know it (milliseconds since the epoch), `None` if this is the first time; `now` is in
    seconds since the epoch. It waits for as long as it has waited already, so a short deploy costs little time, and a long one
    few rounds.
    """
    moment = int(now * 1000)
    # By a clock that is ahead it would wait longer, and by one far ahead for ever.
    begun = moment if since is None else min(since, moment)
    waited = (moment - begun) / 1000
    if waited >= PATIENCE:
        return None
    delay = LONGEST
    while delay > SHORTEST and delay > waited + TOLERANCE:
        delay /= 2
    return UnknownWait(delay, begun)
