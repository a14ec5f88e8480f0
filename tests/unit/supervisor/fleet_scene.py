"""A fleet without processes: tests report what happens, and see what it wants done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amqpworker.supervisor.actions import Action, Log, Start
from amqpworker.supervisor.fleet import Fleet


class FleetScene:
    """A fleet with a clock, and what it wanted done."""

    def __init__(self, **sizes: int) -> None:
        sizes = sizes or {"main": 2}
        self.fleet = Fleet(sizes, lambda: 1.0, {**dict.fromkeys(sizes, 60.0), "patient": 600.0})
        self.now = 100.0
        self.said: list[Log] = []
        self.first = self.on(Fleet.tick)

    def on(self, happens: Callable[..., list[Action]], *given: Any, after: float = 0.0, **named: Any) -> list[Action]:
        """Return what is done if that happens, `after` seconds later; what is only logged is kept aside."""
        self.now += after
        actions = happens(self.fleet, *given, self.now, **named)
        self.said += [one for one in actions if isinstance(one, Log)]
        return [one for one in actions if not isinstance(one, Log)]

    def consumes(self, serial: int) -> list[Action]:
        return [*self.on(Fleet.on_ready, serial, 30.0), *self.on(Fleet.on_consuming, serial)]

    def refused(self, happens: Callable[..., list[Action]], *given: Any, after: float = 0.0) -> list[Action]:
        """Return what is done if that happens, and what follows, where the machine has no room for a process."""
        done = self.on(happens, *given, after=after)
        for action in done:
            if isinstance(action, Start):
                done += self.on(Fleet.on_not_started, action.serial, "no room")
        return done

    def words(self) -> list[str]:
        return [one.event for one in self.said]

    def field(self, event: str, name: str) -> Any:
        """Return a field of the last log line of that event."""
        return [one for one in self.said if one.event == event][-1].fields[name]
