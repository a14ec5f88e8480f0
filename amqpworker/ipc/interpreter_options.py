"""
The options of the interpreter that our programs hand on to each other: `python -O -m amqpworker worker …`.

Pure. Decides which: all that were given, except those that choose the program (`-m`, `-c`) or the begin of the path (`-P`),
since each program of ours is started in its own way.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["interpreter_options"]

HANDED_ON = frozenset("bBdEIOqRsSuv")
WITH_VALUE = frozenset("WX")
PROGRAM = frozenset("cm")
PYCS = "--check-hash-based-pycs"


def interpreter_options(command: Sequence[str] | None = None) -> list[str]:
    """Return the options in the command of an interpreter (default: this one) that another of ours is to be given too."""
    words = iter((sys.orig_argv if command is None else command)[1:])
    found: list[str] = []
    for word in words:
        if word == PYCS:
            found += [word, next(words, "default")]
        elif not word.startswith("-") or word in {"-", "--"}:
            break
        elif not word.startswith("--"):
            for at, letter in enumerate(word[1:], 2):
                if letter in PROGRAM:
                    return found
                if letter in WITH_VALUE:
                    found += [f"-{letter}", word[at:] or next(words, "")]
                    break
                if letter in HANDED_ON:
                    found.append(f"-{letter}")
    return found
