"""
What systemd is told of a supervisor (sd_notify(3)).

Decides what to say when: ready once every process consumes, the watchdog only while enough of those that live are sound.
A broker that is away is no fault of the service: while it waits for one, its timeouts are extended and the watchdog is fed.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field

__all__ = ["Announcer", "Condition", "Notifier", "notifier_from"]

EXTENSION = 60.0
EXTEND_EVERY = 10.0
STATUS_EVERY = 1.0
MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Condition:
    """
    How a supervisor stands.

    Of `wanted` processes so many are `alive`; of these, `sound` (none of their threads stands still), `waiting` (loaded,
    and without a broker) and `consuming`. `status` is that in words.
    """

    wanted: int
    alive: int
    sound: int
    waiting: int
    consuming: int
    reloading: bool
    stopping: bool
    status: str


@dataclass(slots=True)
class Announcer:
    """
    What was said to systemd, and what is to be said next; times are monotonic.

    `watchdog` is the seconds within which it wants to hear from us, None where it does not.
    """

    watchdog: float | None = None
    ready: bool = False
    reloading: bool = False
    stopping: bool = False
    status: str = ""
    status_at: float = field(default=float("-inf"))
    extended_at: float = field(default=float("-inf"))
    fed_at: float = field(default=float("-inf"))

    def next(self, now: float, condition: Condition) -> list[str]:
        """Return the lines to send at `now`."""
        lines = [*self._phase(now, condition), *self._extension(now, condition)]
        # With `READY=1` at once: `systemctl status` right after `systemctl start` is not to tell how it stood a second ago.
        if condition.status != self.status and (now - self.status_at >= STATUS_EVERY or "READY=1" in lines):
            self.status, self.status_at = condition.status, now
            lines.append(f"STATUS={condition.status}")
        if self.watchdog is not None and now - self.fed_at >= self.watchdog / 3 and is_sound(condition):
            self.fed_at = now
            lines.append("WATCHDOG=1")
        return lines

    def _phase(self, now: float, condition: Condition) -> list[str]:
        if condition.stopping:
            said, self.stopping = self.stopping, True
            return [] if said else ["STOPPING=1"]
        if condition.reloading and self.ready and not self.reloading:
            self.reloading = True
            return ["RELOADING=1", f"MONOTONIC_USEC={int(now * MICROSECONDS)}"]
        if self.reloading and not condition.reloading:
            self.reloading = False
            return ["READY=1"]
        if not self.ready and condition.consuming >= condition.wanted:
            self.ready = True
            return ["READY=1"]
        return []

    def _extension(self, now: float, condition: Condition) -> list[str]:
        """Ask for more time while it takes long for a reason; whoever hangs while starting gets none."""
        under_way = condition.stopping or (not self.ready and condition.waiting + condition.consuming > 0)
        if not under_way or now - self.extended_at < EXTEND_EVERY:
            return []
        self.extended_at = now
        return [f"EXTEND_TIMEOUT_USEC={int(EXTENSION * MICROSECONDS)}"]


def is_sound(condition: Condition) -> bool:
    """
    Tell whether enough processes are sound: more than half of those that there are, or whatever is left while it stops.

    One that has died and is to be started again does not hang: whatever takes it down, a restart of all would not mend it.
    """
    return condition.stopping or condition.alive == 0 or condition.sound * 2 > condition.alive


class Notifier:
    """Sends lines to systemd; without an address nothing is sent."""

    def __init__(self, address: str | None) -> None:
        self._address = address
        # Open from the start: the watchdog is fed also when no descriptor is left.
        self._sender = None if address is None else socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def close(self) -> None:
        """Close the socket; after that nothing is sent."""
        if self._sender is not None:
            self._sender.close()
            self._sender = None

    def send(self, lines: list[str]) -> None:
        """Send lines in one datagram; systemd that does not listen is none of our troubles."""
        if self._address is None or self._sender is None or not lines:
            return
        with suppress(OSError):
            self._sender.sendto("\n".join(lines).encode(), self._address)


def notifier_from(environment: MutableMapping[str, str]) -> tuple[Notifier, Announcer]:
    """Return what talks to systemd, as it asked for in the environment; what is meant for us is taken out of it."""
    address = environment.pop("NOTIFY_SOCKET", None)
    if address and address.startswith("@"):
        address = "\0" + address[1:]
    microseconds = environment.pop("WATCHDOG_USEC", "")
    meant = environment.pop("WATCHDOG_PID", None) in {None, str(os.getpid())}
    watchdog = int(microseconds) / MICROSECONDS if microseconds.isdigit() and meant and int(microseconds) else None
    return Notifier(address or None), Announcer(watchdog)
