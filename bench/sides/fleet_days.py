"""
Simulate days of a supervisor: `python -m bench.sides.fleet_days COUNT SEED`, as tests/unit/supervisor/test_fleet_days.py has them.

Prints JSON: how many days, hours and events there were, and the seeds of days on which something did not hold.
"""

from __future__ import annotations

import json
import random
import sys
import traceback
from typing import Any

from tests.unit.supervisor import test_fleet_days as days

SECONDS_IN_HOUR = 3600


class Told:
    """What has happened in all worlds."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.events = 0


def counted(told: Told) -> type[days.World]:
    """Return the test's world, one that counts."""

    class World(days.World):
        def check(self, *judged: Any) -> None:
            super().check(*judged)
            told.events += 1

        def run_until(self, until: float) -> None:
            before = self.now
            super().run_until(until)
            told.seconds += self.now - before

    return World


def main() -> None:
    count, first = map(int, sys.argv[1:])
    told, broken = Told(), []
    days.World = counted(told)
    name = "test_a_day_of_deaths_stalls_and_reloads_leaves_no_orphan_and_never_one_process_too_many"
    day = getattr(days, name).hypothesis.inner_test
    for seed in range(first, first + count):
        try:
            day(random.Random(seed))
        except AssertionError:
            traceback.print_exc()
            broken.append(seed)
    print(json.dumps({"hours": told.seconds / SECONDS_IN_HOUR, "events": told.events, "broken": broken}))


if __name__ == "__main__":
    main()
