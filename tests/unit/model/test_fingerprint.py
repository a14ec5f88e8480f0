"""Errors of one cause have one fingerprint, whatever their numbers, ids and quoted parts are."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.model.fingerprint import fingerprint_of, without_details


@pytest.mark.parametrize(
    ("text", "common"),
    [
        ("no user 4711", "no user #"),
        ("no route to 10.0.0.7:5432", "no route to #"),
        ("order 0199b3c4-5d6e-7f80-9a1b-2c3d4e5f6071 is gone", "order # is gone"),
        ("commit deadbeefdeadbeef", "commit #"),
        ("can't open '/tmp/x y.csv' for reading", "can't open # for reading"),
        ('key "user name" of `table`', "key # of #"),
        ("'cut off in the mid", "#"),
        ("no such user: en", "no such user: en"),
        ("at deadbeef.txt", "at deadbeef.txt"),
        ("at v-deadbeef:x7, added", "at #, added"),
        ("", ""),
    ],
)
def test_what_differs_each_time_is_left_out(text: str, common: str) -> None:
    assert without_details(text) == common


def test_errors_that_differ_in_details_only_have_one_fingerprint() -> None:
    first = fingerprint_of("shop.NoRoute", "no  route to 'db1' after 3 s\n")
    assert first == fingerprint_of("shop.NoRoute", "no route to 'other' after 12.5 s")
    assert first != fingerprint_of("OSError", "no route to 'db1' after 3 s")
    assert first != fingerprint_of("shop.NoRoute", "no answer from 'db1' after 3 s")


@given(st.text(max_size=700), st.text(max_size=50))
def test_every_error_has_a_fingerprint(text: str, error_type: str) -> None:
    assert re.fullmatch("[0-9a-f]{8}", fingerprint_of(error_type, text))
