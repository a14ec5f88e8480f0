"""
Show untrusted text to people: nothing in it moves a terminal's cursor or feigns a line.

Also decides the form of our programs' errors: one line on standard error.
"""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper

MIN_WIDTH = 40


def escape_unencodable() -> None:
    """Let standard output and error escape characters that their encoding does not have, rather than fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def printable(text: str, keep: str = "") -> str:
    """Return text with every character escaped that a terminal would act on, except those in `keep`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else repr(char)[1:-1] for char in text)


def print_error(text: str) -> None:
    """
    Print an error, or a `Warning: …`, on standard error: one line, wrapped between words on a terminal.

    In systemd's journal it has that level (sd-daemon(3)).
    """
    line = f"amqpworker: {printable(' '.join(text.split()))}"
    if sys.stderr.isatty():
        import shutil
        import textwrap

        width = shutil.get_terminal_size().columns if "COLUMNS" in os.environ else _width_of(sys.stderr.fileno())
        line = textwrap.fill(
            line, max(width, MIN_WIDTH), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
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
