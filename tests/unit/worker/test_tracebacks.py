"""Tracebacks of tasks: the text of the standard library, without asking the file system for each frame each time."""

from __future__ import annotations

import linecache
import os
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from amqpworker.worker.tracebacks import MAX_KEPT, TracebackFormatter


def raises() -> None:
    raise ValueError("one line\nanother line")


def with_note() -> None:
    error = ValueError("it has a note")
    error.add_note("the note")
    raise error


def with_cause() -> None:
    try:
        raises()
    except ValueError as error:
        raise RuntimeError("the second") from error


def with_context() -> None:
    try:
        raises()
    except ValueError:
        raise RuntimeError("the second")  # noqa: B904 - this is what is tested


def with_hidden_context() -> None:
    try:
        raises()
    except ValueError:
        raise RuntimeError("the second") from None


def with_group() -> None:
    raise ExceptionGroup("two", [ValueError("one"), KeyError("two")])


def with_syntax_error() -> None:
    compile("a b", "there.py", "exec")


def recurses(depth: int = 40) -> None:
    if depth:
        recurses(depth - 1)
    raises()


def in_turn(depth: int = 150) -> None:
    if depth:
        raise_in_turn(depth - 1)
    raises()


def raise_in_turn(depth: int) -> None:
    in_turn(depth)


def without_source() -> None:
    namespace: dict[str, Any] = {}
    exec("def f():\n    raise ValueError('no source')", namespace)
    namespace["f"]()


def silent() -> None:
    raise KeyError


ALL = [
    raises,
    with_note,
    with_cause,
    with_context,
    with_hidden_context,
    with_group,
    with_syntax_error,
    recurses,
    in_turn,
]


def raised(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError


@pytest.mark.parametrize("function", [*ALL, without_source, silent], ids=lambda one: one.__name__)
def test_a_traceback_is_what_the_standard_library_writes_the_second_time_too(function: Callable[[], None]) -> None:
    formatter = TracebackFormatter()
    for _ in range(2):
        error = raised(function)
        assert formatter.format(error) == "".join(traceback.format_exception(error))


IN_ONE_LINE = (lambda: 1 / 0, lambda: 2 / 0)


def test_two_functions_in_one_line_are_each_underlined_where_they_failed() -> None:
    formatter = TracebackFormatter()
    for function in IN_ONE_LINE:
        error = raised(function)
        assert formatter.format(error) == "".join(traceback.format_exception(error))


def test_an_exception_that_was_never_raised_is_its_last_line_alone() -> None:
    assert TracebackFormatter().format(ValueError("made")) == "ValueError: made\n"


def test_a_frame_that_is_known_is_written_without_asking_the_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    formatter = TracebackFormatter()
    first = formatter.format(raised(raises))

    def refuse(*_: object) -> None:
        raise AssertionError("the file system was asked")

    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr(linecache, "checkcache", refuse)
    assert formatter.format(raised(raises)) == first


def test_the_number_of_frames_that_are_kept_has_a_bound() -> None:
    formatter = TracebackFormatter()
    for number in range(MAX_KEPT + 10):
        namespace: dict[str, Any] = {}
        exec(compile("def f():\n    1 / 0", f"made-{number}", "exec"), namespace)
        assert f'File "made-{number}", line 2, in f' in formatter.format(raised(namespace["f"]))
    assert len(formatter._kept) <= MAX_KEPT
