"""Whether the wall clock was set: it is compared with the monotonic clock, which is never set."""

from __future__ import annotations

from amqpworker.scheduler.scheduler_actions import Action, WriteLog

# Less is a correction of the clock, as by NTP.
SMALLEST_STEP = 5.0


class ClockSteps:
    """Watches the wall clock (milliseconds) by the monotonic one (seconds)."""

    def __init__(self, now: int, monotonic: float) -> None:
        self._offset = now / 1000 - monotonic

    def check(self, now: int, monotonic: float) -> list[Action]:
        """Return a warning if the clock was set since the last call, or the machine was suspended."""
        offset = now / 1000 - monotonic
        step, self._offset = offset - self._offset, offset
        if abs(step) < SMALLEST_STEP:
            return []
        effect = (
            "the ticks between are a gap" if step > 0 else "nothing is sent until the clock has passed the last tick"
        )
        return [WriteLog("warning", "clock_stepped", {"seconds": round(step, 1), "effect": effect})]
