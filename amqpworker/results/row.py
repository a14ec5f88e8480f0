"""
What a result store keeps of one message.

Decides which of two rows of one message counts: a task that has ended does not run again in its row, whatever arrives late; and
whether there is a reply already, which some writers leave as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_RANKS = {"sent": 0, "running": 1}
ENDED = 2

RECORD = "record"
"""The state of a row that an integration keeps beside that of a message: `contrib.django` has the arguments of tasks there."""

RECORD_PREFIX = "aw-record:"


def record_id(task_id: str) -> str:
    """Return the id of such a row."""
    return f"{RECORD_PREFIX}{task_id}"


class ResultRow(NamedTuple):
    """
    What a store keeps of one message: there is one row for each `id`, of the message that was sent last with it.

    `state` is `sent`, `running`, `done`, `failed` or `cancelled`. The set is open: code that reads rows must accept states that
    it does not know. `reply` is the JSON of the wire contract, empty if the task has not ended. `first_sent` is the text of the
    header `aw-first-sent`, empty if the message has none; such texts sort by time. `stored_at`, `expires_at` and `started_at`
    (0 if it has not started) are seconds since the epoch. `attempt` is which attempt the run is, 0 if there was none, `worker` the
    process that runs it, as logs name it. `progress` is the JSON of the wire contract, empty if the task has reported none.
    """

    id: str
    state: str
    task: str
    reply: bytes
    first_sent: str
    stored_at: float
    expires_at: float
    attempt: int = 0
    worker: str = ""
    started_at: float = 0.0
    progress: bytes = b""

    @property
    def rank(self) -> int:
        """How far the message has come: 0 if it was sent, 1 if its task runs, 2 if that has ended or the state is unknown."""
        return _RANKS.get(self.state, ENDED)

    def replaces(self, other: ResultRow) -> bool:
        """Return whether a store must put this row in the place of another one with its id; else it keeps the other."""
        return (self.first_sent, self.rank) >= (other.first_sent, other.rank)

    def has_reply_of(self, other: ResultRow, now: float) -> bool:
        """Return whether this row has a reply to the message of another one with its id, and has not expired at `now`."""
        return bool(self.reply) and self.first_sent == other.first_sent and self.expires_at > now


def merged(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """Return those rows of a batch that count, one for each id, sorted by id: in one order, writers do not deadlock."""
    latest: dict[str, ResultRow] = {}
    for row in rows:
        known = latest.get(row.id)
        if known is None or row.replaces(known):
            latest[row.id] = row
    return [latest[one] for one in sorted(latest)]
