"""
Many tasks that are due in an hour, then one that is due soon: `python -m bench.sides.behind MODULE COUNT SECONDS`.

Prints when the last one is due, since the epoch. MODULE has `delay_many(first, count, seconds)`.
"""

from __future__ import annotations

import importlib
import sys
import time

HOUR = 3600


def main() -> None:
    module, count, seconds = importlib.import_module(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    module.delay_many(1, count, HOUR)
    due = time.time() + seconds
    module.delay_many(count + 1, 1, seconds)
    print(due)


if __name__ == "__main__":
    main()
