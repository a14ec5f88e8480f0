"""
`make demo`: a broker, two worker processes, a task for each source file of a folder, and one that a schedule sends.

    python -m examples.demo [DIR] [--keep]
    python -m examples.demo --stop

Decides how a signal ends it before anything was started; `program` is the demo.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT


def leave(_number: int, _frame: FrameType | None) -> None:
    """Exit at once: nothing was started that would have to be stopped."""
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    # Imported only now: it takes some tenths of a second, in which a Ctrl-C would print a traceback.
    from examples.demo.program import main

    try:
        code = main()
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)
