"""
The program `amqpworker`, also as `python -m amqpworker`: it loads the command line, and runs it.

Decides that Ctrl-C and SIGTERM while it loads just end it: nothing has begun that could be reported or cleaned up. As process 1
of a container it would not even receive a SIGTERM without a handler.
"""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> int:
    """Run the command that the arguments name; return the exit code."""
    if __name__ == "__main__" and not sys.flags.safe_path:
        # No module of the app's folder may take the place of one that is needed here.
        sys.path.append(sys.path.pop(0))
    import signal

    signal.signal(signal.SIGTERM, end)
    heeded = signal.signal(signal.SIGINT, end)
    open_standard()
    from amqpworker.cli.main import main as run

    signal.signal(signal.SIGINT, heeded)
    return run()


def end(number: int, _frame: object) -> None:
    """End by a signal; process 1 of a container survives its own signals, and exits."""
    import signal

    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def open_standard() -> None:
    """Open `/dev/null` in place of a closed standard input, output or error: a pipe of ours would get its number."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "r" if descriptor == 0 else "w", closefd=False))  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main())
