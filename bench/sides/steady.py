"""
Send delayed tasks at a steady pace: `python -m bench.sides.steady COUNT RATE [SHORTEST LONGEST]`; prints their due times.

The delays are random, from the shortest to the longest, 0.1 to 10 s if these are not given.

Each line is two times since the epoch: when it may not have begun before (the delay asked for), and when it is due by
the ladder (the delay rounded up to whole units), both from the moment before `send` was called.
"""

from __future__ import annotations

import json
import math
import random
import sys
import threading
import time

from bench.load import arguments
from bench.sides.ours import app, empty

THREADS = 8
SHORTEST, LONGEST = "0.1", "10"
UNIT = 0.125


class Pace:
    """Threads that share the sending, each with every eighth message."""

    def __init__(self, count: int, rate: int, shortest: float, longest: float) -> None:
        self._count = count
        self._rate = rate
        self._dice = random.Random(1)
        self._delays = [self._dice.uniform(shortest, longest) for _ in range(count)]
        self.due: list[tuple[float, float]] = [(0.0, 0.0)] * count

    def run(self) -> None:
        """Send them all."""
        self._start = time.monotonic() + 0.1
        threads = [threading.Thread(target=self._share, args=(first,)) for first in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _share(self, first: int) -> None:
        for index in range(first, self._count, THREADS):
            time.sleep(max(0.0, self._start + index / self._rate - time.monotonic()))
            delay = self._delays[index]
            now = time.time()
            empty.options(delay=delay).send(**arguments(index))
            self.due[index] = (now + delay, now + math.ceil(delay / UNIT) * UNIT)


def main() -> None:
    count, rate = map(int, sys.argv[1:3])
    shortest, longest = map(float, sys.argv[3:] or (SHORTEST, LONGEST))
    pace = Pace(count, rate, shortest, longest)
    empty.options(delay=UNIT).send(**arguments(count))  # the topology is there before the clock starts
    pace.run()
    print(json.dumps(pace.due))
    app.close()


if __name__ == "__main__":
    main()
