"""What a message in the queue of a scheduler asks for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.model.headers import EXPIRES, FIRST_SENT
from amqpworker.model.message import Delivery, Properties
from amqpworker.scheduler.inbox import Content, Ignored, ListSchedules, Pause, Refused, Resume, TokenMessage, read
from amqpworker.scheduler.token import MAX_AHEAD, Token
from tests.unit.scheduler.election_scene import NOW, text


def content(kind: str | None, body: bytes, headers: dict[str, Any] | None = None, problem: str = "") -> Content:
    return read(Delivery(1, False, "", "", Properties(type=kind, headers=headers), body, problem), NOW)


def test_a_command_counts_from_when_it_was_sent() -> None:
    sent = {FIRST_SENT: text(-5)}
    assert content("pause", b'{"schedule": "s"}', sent) == Pause("s", NOW - 5000)
    assert content("resume", b'{"schedule": "s"}', sent) == Resume("s", NOW - 5000)


@pytest.mark.parametrize("headers", [None, {}, {FIRST_SENT: "?"}, {FIRST_SENT: text(60)}])
def test_a_command_without_a_valid_time_counts_from_now(headers: dict[str, Any] | None) -> None:
    assert content("pause", b'{"schedule": "s"}', headers) == Pause("s", NOW)


def test_a_question_that_has_expired_is_ignored() -> None:
    assert content("list", b"{}", {EXPIRES: text(1)}) == ListSchedules()
    assert content("list", b"{}", {EXPIRES: text(-59)}) == ListSchedules()  # the sender's clock may be behind
    assert content("list", b"{}", {EXPIRES: text(-60)}) == Ignored()


def test_a_token_names_the_scheduler_that_asks() -> None:
    body = b'{"until": "2026-01-01T00:00:00Z", "scheduler": "host:2", "schedules": "abc"}'
    assert content("token", body) == TokenMessage(Token(NOW), "host:2", "abc")
    assert content("token", b"{}") == TokenMessage(None)


def test_a_token_more_than_two_hours_ahead_is_refused() -> None:
    assert content("token", b'{"until": %d}' % (NOW + MAX_AHEAD)) == TokenMessage(Token(NOW + MAX_AHEAD))
    refused = content("token", b'{"until": %d}' % (NOW + MAX_AHEAD + 1))
    assert isinstance(refused, Refused)
    assert refused.is_token
    assert "more than two hours ahead" in refused.reason


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("token", b"{"),
        ("pause", b"[]"),
        ("pause", b"{}"),
        ("resume", b'{"schedule": 1}'),
        ("other", b"{}"),
        (None, b"{}"),
    ],
)
def test_what_cannot_be_used_is_refused(kind: str | None, body: bytes) -> None:
    refused = content(kind, body)
    assert isinstance(refused, Refused)
    assert refused.is_token == (kind == "token")


def test_a_message_with_unreadable_properties_is_refused() -> None:
    assert content("token", b"{}", problem="its headers") == Refused("its headers", True)


@given(st.sampled_from(["token", "pause", "resume", "list", None, ""]), st.binary() | st.text().map(str.encode))
def test_reading_never_fails(kind: str | None, body: bytes) -> None:
    content(kind, body)
