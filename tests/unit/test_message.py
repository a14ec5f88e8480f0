"""What is read of a message's own headers, whatever a stranger wrote there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from amqpworker.message import integer_header


@pytest.mark.parametrize(("value", "number"), [(5, 5), (-5, -5), ("5", 5), ("-5", -5), ("007", 7), (2**63, 2**63)])
def test_a_whole_number_is_read_also_as_decimal_text(value: Any, number: int) -> None:
    assert integer_header({"aw-eta": value}, "aw-eta") == number


@pytest.mark.parametrize("value", ["--5", "5-", "-", "", " 5", "5\n", "٣", "1_0", "9" * 19, 1.5, True, None, b"5", [5]])
def test_anything_else_is_no_number(value: Any) -> None:
    assert integer_header({"aw-eta": value}, "aw-eta") is None


@given(some.text(max_size=25) | some.text("-0123456789", max_size=25))
def test_any_text_is_the_number_that_it_spells_or_none(value: str) -> None:
    number = integer_header({"aw-eta": value}, "aw-eta")
    assert number is None or number == int(value)
