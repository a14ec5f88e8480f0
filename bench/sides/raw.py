"""
A raw socket client that consumes and acknowledges: `python -m bench.sides.raw QUEUE PREFETCH`.

It prints how many messages came, and when the first and the last came. With `BENCH_PROCESSES` it waits for the others.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from bench.tally import Gate, gate_of
from bench.wire import Wire


def main() -> None:
    queue, prefetch = sys.argv[1], int(sys.argv[2])
    wire = Wire(os.environ["BENCH_URL"])
    Gate(gate_of(Path(os.environ["BENCH_TALLY"])), int(os.environ["BENCH_PROCESSES"])).wait()
    # At once with the end of its line: another client writes to the same file.
    sys.stdout.write(json.dumps(wire.consume(queue, prefetch)) + "\n")


if __name__ == "__main__":
    main()
