"""
Dead letters counted by queue, task and fingerprint, in bounded memory.

Pure. Decides which groups are kept: the first ones; the letters of all later groups of a queue are counted as its others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from amqpworker.model.dead_letter import DeadLetter

MAX_GROUPS = 500


@dataclass(slots=True)
class LetterGroup:
    """
    How many letters have the same queue, task and fingerprint, and when the first and the last one died.

    The reason and the error are those of the `example`, the first letter. The group of a queue's others has none of these, and
    no task and fingerprint.
    """

    queue: str
    task: str = ""
    fingerprint: str = ""
    reason: str = ""
    by_broker: bool = False
    error_type: str = ""
    error: str = ""
    count: int = 0
    first: datetime | None = None
    last: datetime | None = None

    @property
    def is_others(self) -> bool:
        """Whether these are the letters of all groups beyond the bound."""
        return not self.fingerprint

    def add(self, letter: DeadLetter) -> None:
        """Count a letter."""
        self.count += 1
        if (died := letter.failed_at) is not None:
            self.first = died if self.first is None else min(self.first, died)
            self.last = died if self.last is None else max(self.last, died)


@dataclass(slots=True)
class LetterGroups:
    """The groups of the letters that were added, of which there are at most `most`, and the others of each queue."""

    most: int = MAX_GROUPS
    count: int = 0
    _groups: dict[tuple[str, str, str], LetterGroup] = field(default_factory=dict)
    _others: dict[str, LetterGroup] = field(default_factory=dict)

    def add(self, letter: DeadLetter) -> None:
        """Count a letter in its group."""
        self.count += 1
        key = (letter.queue, letter.task, letter.fingerprint)
        group = self._groups.get(key)
        if group is None and len(self._groups) < self.most:
            group = self._groups[key] = LetterGroup(
                letter.queue,
                letter.task,
                letter.fingerprint,
                letter.reason,
                letter.by_broker,
                letter.error_type,
                letter.error or letter.problem,
            )
        if group is None:
            group = self._others.setdefault(letter.queue, LetterGroup(letter.queue))
        group.add(letter)

    def __iter__(self) -> Iterator[LetterGroup]:
        """Yield the groups by queue, the largest first; the others of a queue are its last."""
        largest = sorted(self._groups.values(), key=lambda group: -group.count)
        for queue in dict.fromkeys([*(key[0] for key in self._groups), *self._others]):
            yield from (group for group in largest if group.queue == queue)
            if queue in self._others:
                yield self._others[queue]
