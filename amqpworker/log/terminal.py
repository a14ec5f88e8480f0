"""
Text of strangers where people read it: nothing in it moves a terminal's cursor or feigns a line.

Decides the form of our own complaints, too (one line on standard error), and what becomes of characters that the terminal's
encoding has not.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

__all__ = ["complain", "encode_all", "printable"]

NARROWEST = 40


def encode_all() -> None:
    """Let standard output and error write what their encoding has no character for as an escape, not fail at it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def printable(text: str, keep: str = "") -> str:
    """Return text with every character escaped that a terminal would act on, those in `keep` aside."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in keep else repr(one)[1:-1] for one in text)


def complain(text: str) -> None:
    """
    Report on standard error what is wrong: in one line, which a terminal shows wrapped between words.

    In systemd's journal it is an error, or a warning if it begins like one (sd-daemon(3)).
    """
    line = f"amqpworker: {printable(' '.join(text.split()))}"
    if sys.stderr.isatty():
        import shutil
        import textwrap

        width = shutil.get_terminal_size().columns if "COLUMNS" in os.environ else _width_of(sys.stderr.fileno())
        line = textwrap.fill(
            line, max(width, NARROWEST), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
    elif "JOURNAL_STREAM" in os.environ:
        # Loaded only if it may be needed.
        from amqpworker.log.journald import PRIORITIES, is_journal

        if is_journal(sys.stderr):
            line = f"<{PRIORITIES['warning' if text.startswith('Warning') else 'error']}>{line}"
    sys.stderr.write(f"{line}\n")


def _width_of(terminal: int) -> int:
    try:
        return os.get_terminal_size(terminal).columns
    except OSError:
        return 80
