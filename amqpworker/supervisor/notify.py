"""
Notifications to systemd (sd_notify(3)).

Decides when to send what: ready once every process consumes, the watchdog only while enough living processes are healthy.
An unreachable broker is not a failure of the service: while it waits for one, it extends its timeouts and feeds the watchdog.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass

from amqpworker.supervisor.status import SupervisorStatus, status_line

EXTENSION = 60.0
EXTEND_EVERY = 10.0
STATUS_EVERY = 1.0
MICROSECONDS = 1_000_000


@dataclass(slots=True)
class Announcer:
    """
    What was sent to systemd, and what to send next; times are monotonic.

    `watchdog` is how many seconds may pass between two watchdog messages, None if systemd expects none.
    """

    watchdog: float | None = None
    ready: bool = False
    reloading: bool = False
    stopping: bool = False
    status: str = ""
    status_at: float = -math.inf
    extended_at: float = -math.inf
    fed_at: float = -math.inf

    def next(self, now: float, state: SupervisorStatus) -> list[str]:
        """Return the lines to send at `now`."""
        lines = [*self._phase(now, state), *self._extension(now, state)]
        status = status_line(state)
        # At once with `READY=1`: `systemctl status` right after `systemctl start` must not show a status of a second ago.
        if status != self.status and (now - self.status_at >= STATUS_EVERY or "READY=1" in lines):
            self.status, self.status_at = status, now
            lines.append(f"STATUS={status}")
        if self.watchdog is not None and now - self.fed_at >= self.watchdog / 3 and _is_healthy(state):
            self.fed_at = now
            lines.append("WATCHDOG=1")
        return lines

    def _phase(self, now: float, state: SupervisorStatus) -> list[str]:
        if state.stopping:
            sent, self.stopping = self.stopping, True
            return [] if sent else ["STOPPING=1"]
        if state.reloading and self.ready and not self.reloading:
            self.reloading = True
            return ["RELOADING=1", f"MONOTONIC_USEC={int(now * MICROSECONDS)}"]
        if self.reloading and not state.reloading:
            self.reloading = False
            return ["READY=1"]
        if not self.ready and state.consuming >= state.wanted:
            self.ready = True
            return ["READY=1"]
        return []

    def _extension(self, now: float, state: SupervisorStatus) -> list[str]:
        """Ask for more time while it stops or waits for the broker, but not for processes that hang while they start."""
        under_way = state.stopping or (not self.ready and bool(state.waiting or state.consuming))
        if not under_way or now - self.extended_at < EXTEND_EVERY:
            return []
        self.extended_at = now
        return [f"EXTEND_TIMEOUT_USEC={int(EXTENSION * MICROSECONDS)}"]


def _is_healthy(state: SupervisorStatus) -> bool:
    """
    Return whether enough processes are healthy: more than half of those that are alive, or any number during a stop.

    A process that has died and is started again does not count: restarting the service would not help.
    """
    healthy = sum(not process.stalled for process in state.processes)
    return state.stopping or not state.processes or healthy * 2 > len(state.processes)


class Notifier:
    """Sends lines to systemd; without an address nothing is sent."""

    def __init__(self, address: str | None) -> None:
        self._address = address
        # Opened early: the watchdog is fed even if no descriptor is left.
        self._socket = None if address is None else socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def close(self) -> None:
        """Close the socket; nothing is sent afterwards."""
        if self._socket is not None:
            self._socket.close()

    def send(self, lines: list[str]) -> None:
        """Send lines in one datagram; errors are ignored."""
        if self._address is not None and self._socket is not None and lines:
            with suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), self._address)


def notifier_from(environment: MutableMapping[str, str]) -> tuple[Notifier, Announcer]:
    """Return the notifier that systemd asks for in the environment, and remove its variables from there."""
    address = environment.pop("NOTIFY_SOCKET", None)
    if address and address.startswith("@"):
        address = "\0" + address[1:]
    microseconds = environment.pop("WATCHDOG_USEC", "")
    for_us = environment.pop("WATCHDOG_PID", None) in {None, str(os.getpid())}
    watchdog = int(microseconds) / MICROSECONDS if microseconds.isdigit() and for_us and int(microseconds) else None
    return Notifier(address or None), Announcer(watchdog)
