"""
Who the schedulers of one name are: this one, and those that do not lead, as far as the leader has heard of them.

Decides which of them have other schedules: an older or newer version of the app, or another service with the same name.
"""

from __future__ import annotations

from dataclasses import dataclass

from amqpworker.scheduler.scheduler_actions import Action, WriteLog

FORGET_AFTER = 35.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this scheduler is: its namespace and name, and the `label` (host:pid) and schedules that others see."""

    namespace: str
    scheduler: str
    label: str
    fingerprint: str


class Others:
    """The other schedulers that were heard of lately, each with the hash of its schedules."""

    def __init__(self, me: Identity) -> None:
        self._me = me
        self._seen: dict[str, tuple[str, float]] = {}

    def on_seen(self, label: str, fingerprint: str, monotonic: float) -> list[Action]:
        """Note a scheduler that has asked who leads; return a warning if its schedules differ and that is news."""
        if not label or label == self._me.label:
            return []
        self._forget(monotonic)
        before, _ = self._seen.get(label, ("", monotonic))
        self._seen[label] = fingerprint, monotonic
        if fingerprint in {self._me.fingerprint, before}:
            return []
        effect = (
            "its schedules are sent once it leads; if it is another service, give one of both another scheduler name"
        )
        return [
            WriteLog("warning", "schedules_differ", {"scheduler": self._me.scheduler, "other": label, "effect": effect})
        ]

    def differing(self, monotonic: float) -> list[str]:
        """Return the schedulers that have other schedules, and were heard of lately."""
        self._forget(monotonic)
        return sorted(label for label, (fingerprint, _) in self._seen.items() if fingerprint != self._me.fingerprint)

    def _forget(self, monotonic: float) -> None:
        self._seen = {label: seen for label, seen in self._seen.items() if monotonic - seen[1] <= FORGET_AFTER}
