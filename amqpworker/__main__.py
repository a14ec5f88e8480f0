"""
The program `amqpworker`, also as `python -m amqpworker`: it loads the command line and runs it.

Decides that Ctrl-C and SIGTERM end the program at once while it loads: there is nothing to report or to clean up yet. Process 1
of a container would not even receive a SIGTERM without a handler.
"""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the command that the arguments name; return the exit code."""
    if __name__ == "__main__" and not sys.flags.safe_path:
        # The app's folder comes last: none of its modules may hide one that is needed here.
        sys.path.append(sys.path.pop(0))
    import signal

    signal.signal(signal.SIGTERM, _on_signal)
    default_handler = signal.signal(signal.SIGINT, _on_signal)
    _open_standard_streams()
    from amqpworker.cli.main import main as run

    signal.signal(signal.SIGINT, default_handler)
    return run()


def _on_signal(number: int, _frame: object) -> None:
    """Die of the signal; process 1 of a container survives its own signals, and exits instead."""
    import signal

    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def _open_standard_streams() -> None:
    """Open `/dev/null` in place of a closed standard input, output or error: a pipe of ours would get its descriptor."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free descriptor
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "r" if descriptor == 0 else "w", closefd=False))  # noqa: SIM115


if __name__ == "__main__":
    sys.exit(main())
