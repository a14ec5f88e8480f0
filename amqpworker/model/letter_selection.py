"""
Which dead letters a verb is about: by name, group, task, reason and age.

Pure. Which queues are read is decided by the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from amqpworker.model.dead_letter import DeadLetter

ANY: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """
    What a letter must have; an empty set allows all values.

    A letter whose time of death is not known is not older than anything.
    """

    names: frozenset[str] = ANY
    groups: frozenset[str] = ANY
    tasks: frozenset[str] = ANY
    reasons: frozenset[str] = ANY
    died_before: datetime | None = None

    def matches(self, letter: DeadLetter) -> bool:
        """Return whether a letter is selected."""
        if self.died_before is not None and (letter.failed_at is None or letter.failed_at >= self.died_before):
            return False
        return (
            (not self.tasks or letter.task in self.tasks)
            and (not self.reasons or letter.reason in self.reasons)
            and (not self.names or letter.name in self.names)
            # The last, since it takes longest.
            and (not self.groups or letter.fingerprint in self.groups)
        )
