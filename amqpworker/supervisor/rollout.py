"""
The changes that are to come in a pool: processes to replace, and places to give up.

Decides that its places change one after the other, whose turn it is, and when a reload is given up. What a change does is
`fleet`'s.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal, TypeAlias

from amqpworker.supervisor.slots import Pool, Process, Slot

__all__ = ["Kind", "Replacement", "Rollout"]

MOST_RELOAD_FAILURES = 3

Kind: TypeAlias = Literal["reload", "recycle", "retire"]


@dataclass(slots=True, eq=False)
class Replacement:
    """One place that is to get another process than `process`, or to go (`retire`), not before `start_at`."""

    place: Slot
    process: Process | None
    kind: Kind
    reason: str
    failures: int = 0
    start_at: float = 0.0

    @property
    def due_at(self) -> float:
        """When it may begin: its place may have been put off, too."""
        return max(self.start_at, self.place.start_at)

    @property
    def under_way(self) -> bool:
        """Whether a change that was begun is not over yet."""
        return (self.place.process if self.kind == "retire" else self.place.successor) is not None

    def replaces(self, process: Process, generation: int) -> bool:
        """Tell whether a process is still the one to replace: it may have died and been replaced meanwhile."""
        return process.generation < generation if self.kind == "reload" else process is self.process


class Rollout:
    """What is to change in `pool`: one at a time (`current`), the others wait for their turn."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.current: Replacement | None = None
        self._waiting: deque[Replacement] = deque()

    def add(self, change: Replacement, urgent: bool = False) -> None:
        """Note what is to change, unless such a change waits already."""
        if all((one.place, one.kind) != (change.place, change.kind) for one in self._waiting):
            if urgent:
                self._waiting.appendleft(change)
            else:
                self._waiting.append(change)

    def pending(self) -> list[Replacement]:
        """Return everything that is to change."""
        return [*([self.current] if self.current else []), *self._waiting]

    @property
    def successor(self) -> Process | None:
        """The process that is to follow another by the current change, None where there is none."""
        return None if self.current is None else self.current.place.successor

    @property
    def reloading(self) -> bool:
        """Whether processes are still to be replaced because of a reload."""
        return any(change.kind == "reload" for change in self.pending())

    def retires(self, place: Slot) -> bool:
        """Tell whether a place is to go."""
        return any(one.place is place and one.kind == "retire" for one in self.pending())

    def take(self, now: float, may_start: bool = True) -> Replacement | None:
        """
        Return the first that is due, which becomes the current one, None where one is under way or none is due.

        What starts a process is due only if one `may_start`.
        """
        if self.current is None:
            may_begin = (one for one in self._waiting if may_start or one.kind == "retire")
            self.current = next((one for one in may_begin if self._is_due(one, now)), None)
            if self.current is not None:
                self._waiting.remove(self.current)
                return self.current
        return None

    def _is_due(self, change: Replacement, now: float) -> bool:
        if change.kind == "retire":
            return change.place.process is None or self.pool.consumes_without(change.place)
        # A reload goes from place to place: where one is put off, all of them wait.
        alike = [one for one in self._waiting if one.kind == "reload"] if change.kind == "reload" else []
        return all(one.due_at <= now for one in (change, *alike))

    def next_due(self, now: float) -> float | None:
        """Return when the next has its turn, None where nothing waits for a time to come."""
        due = [one.due_at for one in self._waiting if one.due_at > now]
        return min(due, default=None) if self.current is None else None

    def end_current(self) -> None:
        """Forget the current one, unless it is still under way."""
        if self.current is not None and not self.current.under_way:
            self.current = None

    def put_back(self) -> None:
        """Have the current one wait once more."""
        change, self.current = self.current, None
        if change is not None:
            self._waiting.appendleft(change)

    def fail_current(self, hopeless: bool) -> bool:
        """
        Have the current one, whose successor is lost, wait once more; or give up a reload that is `hopeless` or failed often.

        Returns whether the reload is given up, for all that were still to come.
        """
        change = self.current
        if change is None:
            return False
        change.failures += 1
        given_up = change.kind == "reload" and (hopeless or change.failures >= MOST_RELOAD_FAILURES)
        self.put_back()
        if given_up:
            self._waiting = deque(one for one in self._waiting if one.kind != "reload")
        return given_up
