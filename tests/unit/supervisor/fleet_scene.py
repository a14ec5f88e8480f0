"""A fleet without processes: tests tell it what happens, and see what it wants done."""

from __future__ import annotations

from typing import Any

from amqpworker.supervisor.fleet import Fleet
from amqpworker.supervisor.fleet_events import Action, Consuming, Event, Log, NotStarted, Ready, Start, Tick


class Scene:
    """A fleet with a clock, and what it wanted done."""

    def __init__(self, **sizes: int) -> None:
        sizes = sizes or {"main": 2}
        self.fleet = Fleet(sizes, lambda: 1.0, {**dict.fromkeys(sizes, 60.0), "patient": 600.0})
        self.now = 100.0
        self.said: list[Log] = []
        self.first = self.on(Tick())

    def on(self, event: Event, after: float = 0.0) -> list[Action]:
        """Return what is done about an event, `after` seconds later; what is only said is kept aside."""
        self.now += after
        actions = self.fleet.handle(event, self.now)
        self.said += [one for one in actions if isinstance(one, Log)]
        return [one for one in actions if not isinstance(one, Log)]

    def consumes(self, serial: int) -> list[Action]:
        return [*self.on(Ready(serial, 30.0)), *self.on(Consuming(serial))]

    def refused(self, event: Event, after: float = 0.0) -> list[Action]:
        """Return what is done about an event and what follows from it, where the machine has no room for a process."""
        self.now += after
        done: list[Action] = []
        events = [event]
        while events:
            actions = self.on(events.pop(0))
            done += actions
            events += [NotStarted(one.serial, "no room") for one in actions if isinstance(one, Start)]
        return done

    def words(self) -> list[str]:
        return [one.event for one in self.said]

    def field(self, event: str, name: str) -> Any:
        """Return a field of what was said last of that."""
        return [one for one in self.said if one.event == event][-1].fields[name]
