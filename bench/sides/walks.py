"""
Walk through a queue again and again: `python -m bench.sides.walks QUEUE`, until it is ended.

Prints how long messages were held back at most, walk by walk.
"""

from __future__ import annotations

import os
import sys

from amqpworker import Settings
from amqpworker.broker.queue_walk import QueueWalker


def main() -> None:
    with QueueWalker(os.environ["BENCH_URL"], Settings()) as walker:
        while True:
            with walker.walk(sys.argv[1]) as walk:
                for _ in walk:
                    pass
            print(walk.seconds, flush=True)


if __name__ == "__main__":
    main()
