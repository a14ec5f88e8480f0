"""
Text of strangers where people read it: nothing in it moves a terminal's cursor or feigns a line.

Decides the form of our own complaints, too (one line on standard error), and what becomes of characters that the terminal's
encoding has not.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper

__all__ = ["complain", "encode_all", "printable"]


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
    """Say in one line on standard error what is wrong."""
    sys.stderr.write(f"amqpworker: {printable(' '.join(text.split()))}\n")
