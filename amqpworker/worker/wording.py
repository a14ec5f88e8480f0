"""How the end of a process is told."""

from __future__ import annotations

import signal

__all__ = ["how_it_ended", "signal_name"]


def how_it_ended(code: int) -> str:
    """Return an exit code, or (negative) a signal, as people write it."""
    return f"signal {signal_name(-code)}" if code < 0 else f"exit code {code}"


def signal_name(number: int) -> str:
    """Return the name of a signal; real-time signals have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
