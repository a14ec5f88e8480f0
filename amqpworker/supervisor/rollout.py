"""
The pending changes of a pool: processes to replace, and slots to retire.

Decides that its slots change one after the other, in which order, and when a reload has failed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal, TypeAlias

from amqpworker.supervisor.slots import FleetProcess, Pool, Slot

MAX_RELOAD_FAILURES = 3

Kind: TypeAlias = Literal["reload", "recycle", "retire"]


@dataclass(slots=True, eq=False)
class RolloutStep:
    """One slot whose `process` will be replaced, or which will be removed (`retire`), not before `start_at`."""

    slot: Slot
    process: FleetProcess | None
    kind: Kind
    reason: str
    failures: int = 0
    start_at: float = 0.0

    @property
    def due_at(self) -> float:
        """When it may begin: its slot may be backing off, too."""
        return max(self.start_at, self.slot.start_at)

    @property
    def is_under_way(self) -> bool:
        """Whether a step that has begun is not complete yet."""
        return (self.slot.process if self.kind == "retire" else self.slot.replacement) is not None

    def replaces(self, process: FleetProcess, generation: int) -> bool:
        """Return whether a process is still the one to replace: it may have died and been replaced meanwhile."""
        return process.generation < generation if self.kind == "reload" else process is self.process


class Rollout:
    """The changes of `pool`: one at a time (`current`), the others wait."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.current: RolloutStep | None = None
        self._waiting: deque[RolloutStep] = deque()

    def add(self, step: RolloutStep, urgent: bool = False) -> None:
        """Add a step, unless an equal one is waiting already."""
        if all((other.slot, other.kind) != (step.slot, step.kind) for other in self._waiting):
            self._waiting.insert(0 if urgent else len(self._waiting), step)

    def pending(self) -> list[RolloutStep]:
        """Return the current step and those that wait."""
        return [*([self.current] if self.current else []), *self._waiting]

    @property
    def replacement(self) -> FleetProcess | None:
        """The process that the current step has started to replace another one, None if there is none."""
        return None if self.current is None else self.current.slot.replacement

    @property
    def reloading(self) -> bool:
        """Whether a reload is still in progress."""
        return any(step.kind == "reload" for step in self.pending())

    def retires(self, slot: Slot) -> bool:
        """Return whether a slot is going to be removed."""
        return any(step.slot is slot and step.kind == "retire" for step in self.pending())

    def start_next(self, now: float, may_start: bool = True) -> RolloutStep | None:
        """
        Return the first step that is due, which becomes the current one; None if one is in progress or none is due.

        A step that starts a process is due only if one `may_start`.
        """
        if self.current is not None:
            return None
        may_begin = (step for step in self._waiting if may_start or step.kind == "retire")
        self.current = next((step for step in may_begin if self._is_due(step, now)), None)
        if self.current is not None:
            self._waiting.remove(self.current)
        return self.current

    def _is_due(self, step: RolloutStep, now: float) -> bool:
        if step.kind == "retire":
            return step.slot.process is None or self.pool.consumes_elsewhere(step.slot)
        # A reload goes from slot to slot: if one backs off, all of them wait.
        alike = [other for other in self._waiting if other.kind == "reload"] if step.kind == "reload" else []
        return all(other.due_at <= now for other in (step, *alike))

    def next_due(self, now: float) -> float | None:
        """Return when the next step is due, None if none waits for a time in the future."""
        due = [step.due_at for step in self._waiting if step.due_at > now]
        return min(due, default=None) if self.current is None else None

    def clear_finished(self) -> None:
        """Forget the current step if it is complete."""
        if self.current is not None and not self.current.is_under_way:
            self.current = None

    def retry_later(self) -> None:
        """Have the current step wait again."""
        step, self.current = self.current, None
        if step is not None:
            self._waiting.appendleft(step)

    def on_replacement_lost(self, can_never_run: bool) -> bool:
        """
        Retry the current step, whose replacement has ended, or give up a reload that has failed too often or `can_never_run`.

        Returns whether the reload was given up, with all steps of it.
        """
        step = self.current
        if step is None:
            return False
        step.failures += 1
        given_up = step.kind == "reload" and (can_never_run or step.failures >= MAX_RELOAD_FAILURES)
        self.retry_later()
        if given_up:
            self._waiting = deque(other for other in self._waiting if other.kind != "reload")
        return given_up
