"""
Round trips of `call()`: `python -m bench.sides.rpc_ours one|threads COUNT`.

Prints the seconds of each call, or calls per second and processor time.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from bench.sides.ours import app, echo
from bench.stopwatch import Figures, measured

THREADS = 256


def one(count: int) -> list[float]:
    """Call one at a time; return the seconds that each took."""
    times = []
    for index in range(count):
        start = time.perf_counter()
        if echo.options(timeout=30).call(index) != index:
            raise SystemExit("a wrong answer")
        times.append(time.perf_counter() - start)
    return times


def threads(count: int) -> Figures:
    """Call from many threads; return what that took."""
    each = count // THREADS
    ready = threading.Barrier(THREADS + 1)
    right: list[int] = []

    def caller(first: int) -> None:
        call = echo.options(timeout=30).call
        ready.wait()
        for index in range(first, first + each):
            if call(index) != index:
                return
        right.append(first)

    started = [threading.Thread(target=caller, args=(number * each,)) for number in range(THREADS)]
    for thread in started:
        thread.start()
    with measured("call", THREADS * each) as figures:
        ready.wait()
        for thread in started:
            thread.join()
    if len(right) != THREADS:
        raise SystemExit("a call failed")
    return figures


def main() -> None:
    mode, count = sys.argv[1], int(sys.argv[2])
    one(100)
    print(json.dumps(one(count) if mode == "one" else threads(count)))
    app.close()


if __name__ == "__main__":
    main()
