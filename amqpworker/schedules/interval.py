"""Times at a fixed distance, counted from one moment: all hosts calculate the same ones."""

from __future__ import annotations

from dataclasses import dataclass

_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"))


@dataclass(frozen=True, slots=True)
class Interval:
    """A time every `every` milliseconds, before and after `base`, which is one of them."""

    every: int
    base: int = 0

    def after(self, moment: int) -> int:
        """Return the first time after `moment`."""
        return self.latest(moment) + self.every

    def latest(self, moment: int) -> int:
        """Return the last time that is not after `moment`."""
        return moment - (moment - self.base) % self.every

    def count(self, since: int, until: int) -> int:
        """Return how many times are after `since` and not after `until`."""
        return max(0, (self.latest(until) - self.latest(since)) // self.every)

    def __str__(self) -> str:
        for unit, name in _UNITS:
            if self.every % unit == 0:
                return f"every {self.every // unit} {name}"
        return f"every {self.every / 1000:g} s" if self.every < 10**9 else f"every {self.every / 1000} s"
