"""
The program `amqpworker`, also as `python -m amqpworker`: it loads the command line, and runs it.

Decides that Ctrl-C while it loads just ends it: nothing has begun that could be told or tidied up.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command that the arguments name; return the exit code."""
    if __name__ == "__main__" and not sys.flags.safe_path:
        # No module of the app's folder is to take the place of one that is needed here.
        sys.path.append(sys.path.pop(0))
    import signal

    heeded = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from amqpworker.cli.main import main as run

    signal.signal(signal.SIGINT, heeded)
    return run()


if __name__ == "__main__":
    sys.exit(main())
