"""
The traceback of a task's exception as text, as the standard library writes it, without our own frames.

`traceback.format_exception` asks the file system about each source file each time, and releases the interpreter lock for it:
with eight threads that takes a quarter of the time of tasks that fail. So the text of each frame is kept.
"""

from __future__ import annotations

import traceback
from types import CodeType, TracebackType

MAX_KEPT = 2000
MAX_FRAMES = 100
# `traceback` shows a line that often in succession, and then how often it was repeated.
MAX_REPEATS = 3
HEADING = "Traceback (most recent call last):\n"


class TracebackFormatter:
    """Formats exceptions; safe to use from many threads."""

    def __init__(self) -> None:
        # By code and instruction: two lambdas in one line differ in what is underlined. The code is kept, too: ids are reused.
        self._kept: dict[tuple[int, int], tuple[CodeType, str]] = {}

    def format(self, error: BaseException) -> str:
        """Return an exception with its traceback, as `traceback.format_exception` does."""
        found = _without_ours(error.__traceback__)
        frames = self._frames(found)
        if frames is None or _has_others(error):
            return "".join(traceback.format_exception(type(error), error, found))
        return "".join((HEADING if frames else "", *frames, *traceback.format_exception_only(error)))

    def _frames(self, found: TracebackType | None) -> list[str] | None:
        """Return the text of each frame, or None for what `traceback` shortens: recursion."""
        frames: list[str] = []
        last, repeats = None, 0
        while found is not None:
            code = found.tb_frame.f_code
            line = code.co_filename, code.co_name, found.tb_lineno
            repeats = repeats + 1 if line == last else 1
            if repeats > MAX_REPEATS or len(frames) == MAX_FRAMES:
                return None
            frames.append(self._frame(found, code))
            last, found = line, found.tb_next
        return frames

    def _frame(self, found: TracebackType, code: CodeType) -> str:
        key = id(code), found.tb_lasti
        kept = self._kept.get(key)
        if kept is None:
            kept = code, "".join(traceback.format_tb(found, 1))
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[key] = kept
        return kept[1]


def _has_others(error: BaseException) -> bool:
    """Return whether other exceptions are shown with this one."""
    if isinstance(error, BaseExceptionGroup) or error.__cause__ is not None:
        return True
    return error.__context__ is not None and not error.__suppress_context__


def _without_ours(found: TracebackType | None) -> TracebackType | None:
    theirs = found
    while theirs is not None and str(theirs.tb_frame.f_globals.get("__name__")).startswith("amqpworker.worker."):
        theirs = theirs.tb_next
    return theirs or found
