"""Text made shorter, or fit to be encoded."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.text import cut, encodable, name_of, truncated


@given(st.text(), st.integers(64, 300))
def test_text_is_cut_in_the_middle_and_never_within_a_character(text: str, most: int) -> None:
    shortened = truncated(text, most)
    assert len(shortened.encode()) <= most
    if len(text.encode("utf-8", "replace")) <= most:
        assert shortened == text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize(("text", "shown"), [("", ""), ("abc", "abc"), ("abcd", "abc…")])
def test_a_text_that_was_cut_ends_in_an_ellipsis(text: str, shown: str) -> None:
    assert cut(text, 3) == shown


@given(st.text())
def test_every_text_can_be_encoded_and_stays_as_it_is_if_it_could(text: str) -> None:
    assert encodable(text) == text
    assert encodable(text + "\ud800").encode().decode() == text + "\\ud800"


@pytest.mark.parametrize(
    ("callable_", "name"),
    [(cut, "amqpworker.text.cut"), (partial(cut, ""), "functools.partial"), ([].append, "builtins.list.append")],
)
def test_a_callable_is_named_by_its_module_and_itself_or_its_class(callable_: Callable[..., object], name: str) -> None:
    assert name_of(callable_) == name
