"""
The interpreter options that amqpworker passes on to the programs that it starts: `python -O -m amqpworker worker …`.

Pure. Passes on all options that were given, except those that choose the program (`-m`, `-c`) or change the start of the path
(`-P`), since each of our programs is started in its own way.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

PASSED_ON = frozenset("bBdEIOqRsSuv")
WITH_VALUE = frozenset("WX")
PROGRAM = frozenset("cm")
PYCS = "--check-hash-based-pycs"


def interpreter_options(command: Sequence[str] | None = None) -> list[str]:
    """Return the options in the command of an interpreter (default: this one) that the programs it starts get, too."""
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
                if letter in PASSED_ON:
                    found.append(f"-{letter}")
    return found
