"""
Fill the queue: `python -m bench.sides.fill MODULE TASK COUNT`.

Prints the seconds that the sending took, without imports.
"""

from __future__ import annotations

import importlib
import sys
import time


def main() -> None:
    module, task, count = sys.argv[1:]
    fill = importlib.import_module(module).fill
    start = time.perf_counter()
    fill(task, int(count))
    print(time.perf_counter() - start)


if __name__ == "__main__":
    main()
