"""How a token is written and read, and which of several counts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from amqpworker.scheduler.token import (
    MAX_AHEAD,
    MalformedToken,
    Token,
    is_too_far_ahead,
    latest_of,
    read_object,
    read_token,
    token_fields,
)
from tests.unit.scheduler.election_scene import MINUTE, NOW, ElectionScene, each

times = st.integers(-(10**12), 10**13)
several = st.dictionaries(st.text(st.characters(codec="utf-8")), times, max_size=3)


@given(st.builds(Token, times, several, several, several, st.just("host:1"), times, st.integers(0, 10**9)))
def test_a_token_is_read_as_it_was_written(token: Token) -> None:
    assert read_token(read_object(to_json(token_fields(token)))) == token


def test_an_empty_token_holds_nothing() -> None:
    assert token_fields(None) == {}
    assert read_token({}) is None
    assert read_token({"until": None, "scheduler": "host:2"}) is None


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"{", b"\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_what_is_not_a_json_object_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedToken, match="not a JSON object"):
        read_object(body)


@pytest.mark.parametrize(
    "fields",
    [
        {"until": "soon"},
        {"until": True},
        {"until": 1.5},
        {"until": "2026-01-01T00:00:00"},
        {"until": 10**40},
        {"until": "9" * 5000},
        {"until": -(10**15)},
        {"until": NOW, "lagging": []},
        {"until": NOW, "lagging": {"s": -(10**15)}},
        {"until": NOW, "paused": {"s": None}},
        {"until": NOW, "running": {"s": {}}},
        {"until": NOW, "since": "?"},
    ],
)
def test_a_time_that_is_not_one_is_malformed(fields: dict[str, Any]) -> None:
    with pytest.raises(MalformedToken, match="is not"):
        read_token(fields)


@pytest.mark.parametrize("label", ["\ud800", {"a": 1}, None, "x" * 10_000])
def test_any_leader_in_a_token_can_be_written_again(label: Any) -> None:
    token = read_token(json.loads(json.dumps({"until": NOW, "leader": label})))
    assert len(to_json(token_fields(token))) < 1000


def test_a_number_that_is_not_one_is_the_least() -> None:
    for number in ("x", -1, None, 1.5, [], "9" * 5000):
        token = read_token({"until": NOW, "number": number})
        assert token is not None
        assert latest_of([Token(NOW, number=1), token]) == Token(NOW, number=1)


def test_the_latest_time_counts_then_the_highest_number_then_the_last_one() -> None:
    old, low = Token(NOW - 1, number=9), Token(NOW, number=3)
    high, same = Token(NOW, number=4), Token(NOW, number=4, leader="other")
    assert latest_of([high, old, low]) is high
    assert latest_of([high, low, same]) is same
    assert latest_of([]) is None


def test_a_token_up_to_two_hours_ahead_counts() -> None:
    assert not is_too_far_ahead(Token(NOW + MAX_AHEAD), NOW)
    assert is_too_far_ahead(Token(NOW + MAX_AHEAD + 1), NOW)


def test_a_token_for_10_000_schedules_of_which_few_lag_is_less_than_1_kb() -> None:
    scene = ElectionScene(*(each(60, f"schedule-{number}") for number in range(10_000)))
    scene.lead(Token(NOW - 1))
    for number in range(5):
        scene.receive("pause", {"schedule": f"schedule-{number}"})
    scene.confirm(scene.actions)
    scene.run(MINUTE / 1000, 10, refused=[f"schedule-{number}" for number in range(5, 10)])
    token = scene.commit()
    assert len(token.lagging) == len(token.paused) == 5
    assert len(to_json(token_fields(token))) < 1000
