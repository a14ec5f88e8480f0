"""
Send many tasks that wait: `python -m bench.sides.waiting FIRST COUNT SECONDS`; prints messages per second.

They have the numbers from FIRST on, and are due in SECONDS. The topology is there before the clock starts.
"""

from __future__ import annotations

import sys
import time

from bench.sides.ours import app, delay_many

CHUNK = 10_000
WARM_UP = 100


def main() -> None:
    first, count, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    warm_up = min(WARM_UP, count)
    delay_many(first, warm_up, seconds)
    start = time.perf_counter()
    for sent in range(warm_up, count, CHUNK):
        delay_many(first + sent, min(CHUNK, count - sent), seconds)
    print((count - warm_up) / (time.perf_counter() - start))
    app.close()


if __name__ == "__main__":
    main()
