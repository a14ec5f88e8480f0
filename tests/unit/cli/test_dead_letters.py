"""What is read out of a dead letter of any origin."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.cli.dead_letters import group_summary, reason_in_words, reason_text, summary, whole
from amqpworker.cli.dead_listing import show_groups, show_letter, show_letters
from amqpworker.cli.dead_options import Choice
from amqpworker.cli.option_times import seconds_of
from amqpworker.cli.output import clipped, folded, plain
from amqpworker.errors import ConfigError, InvalidArguments
from amqpworker.model.dead_letter import DeadLetter
from amqpworker.model.letter_groups import LetterGroups
from amqpworker.model.message import Delivery, Properties

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.datetimes(timezones=st.just(UTC))
    | st.builds(Decimal, st.integers(-(2**31), 2**31 - 1)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    ["x-death", "aw-dead-reason", "aw-error", "aw-traceback", "aw-attempt", "aw-failed-at", "aw-first-sent", "other"]
)


def got(headers: dict[str, Any] | None = None, body: bytes = b"{}", **properties: Any) -> Delivery:
    return Delivery(1, False, "amqpworker.dead", "emails", Properties(headers=headers, **properties), body)


def test_our_own_evidence_is_read() -> None:
    letter = DeadLetter.of(
        got(
            {
                "aw-dead-reason": "failed",
                "aw-error-type": "shop.errors.NoRoute",
                "aw-error": "no route",
                "aw-traceback": "Traceback …",
                "aw-failed-at": 1_795_572_548_797,
                "aw-attempt": "4",
                "aw-worker": "host:1",
            },
            message_id="id-1",
            type="shop.welcome",
        ),
        "emails.dead",
        3,
    )
    assert summary(letter) == {
        "name": "id-1",
        "id": "id-1",
        "task": "shop.welcome",
        "queue": "emails.dead",
        "group": letter.fingerprint,
        "reason": "failed",
        "error_type": "shop.errors.NoRoute",
        "error": "no route",
        "failed_at": "2026-11-25T02:09:08.797Z",
        "attempt": 4,
        "worker": "host:1",
        "problem": "",
    }


def test_the_brokers_own_evidence_is_read_if_there_is_none_of_ours() -> None:
    at = datetime(2026, 11, 25, 2, 9, tzinfo=UTC)
    letter = DeadLetter.of(
        got({"x-death": [{"reason": "delivery_limit", "time": at}, {"reason": "expired"}]}), "emails.dead", 1
    )
    assert summary(letter)["reason"] == "delivery_limit (RabbitMQ)"
    assert reason_text(letter) == "RabbitMQ: delivered too often (delivery limit)"
    assert letter.failed_at == at


def test_a_message_that_was_due_and_found_no_queue_has_not_expired() -> None:
    deaths = [{"reason": "expired", "queue": "amqpworker.delay.02"}]
    letter = DeadLetter.of(got({"x-death": deaths}), "amqpworker.parked", 1)
    assert summary(letter)["reason"] == "no-queue (RabbitMQ)"
    assert reason_text(letter) == "queue 'emails' did not exist when it was due"


@pytest.mark.parametrize(
    ("reason", "told"), [("expired", "RabbitMQ: its time to live expired (TTL)"), ("odd", "RabbitMQ: odd")]
)
def test_the_brokers_reasons_are_reported_in_words(reason: str, told: str) -> None:
    deaths = [{"reason": reason, "queue": "emails"}, {"reason": "expired", "queue": "amqpworker.delay.02"}]
    assert reason_text(DeadLetter.of(got({"x-death": deaths}), "emails.dead", 1)) == told
    assert reason_text(DeadLetter.of(got({"aw-dead-reason": reason}), "q", 1)) == reason


def test_a_list_shows_times_with_their_zone_in_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    headers = {"aw-dead-reason": "failed", "aw-failed-at": 1_795_572_548_797, "aw-error": "no route to host " * 5}
    letter = DeadLetter.of(got(headers, message_id="0199b3c4-5d6e-7f80-9a1b-2c3d4e5f6071", type="n" * 80), "q", 1000)
    show_letters("emails.dead", 1, [letter])
    told = capsys.readouterr().out
    assert "2026-11-25 02:09:08Z" in told
    assert "0199b3c4-5d6e-7f80-9a1b-2c3d4e5f6071" in told
    assert max(map(len, told.splitlines())) <= 80
    show_letter(letter)
    assert "failed at 2026-11-25 02:09:08Z" in " ".join(capsys.readouterr().out.split())


def test_an_error_has_most_of_a_line_of_a_list(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    headers = {"aw-dead-reason": "failed", "aw-error-type": "OSError", "aw-error": "no route to db.internal:5432"}
    show_letters("emails.dead", 1, [DeadLetter.of(got(headers, message_id="id-1", type="shop.welcome"), "q", 1)])
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "failed, OSError: no route to db.internal:5432" in lines


@pytest.mark.parametrize("forged", [1, "x", [], [1], [[]], {"reason": "x"}, [{"reason": 5, "time": 2**62}]])
def test_a_forged_death_does_not_fail(forged: object) -> None:
    assert DeadLetter.of(got({"x-death": forged}), "q", 1).failed_at is None


@given(st.dictionaries(NAMES, VALUES, max_size=6), st.binary(max_size=20))
def test_every_letter_can_be_read_and_written_as_json(headers: dict[str, Any], body: bytes) -> None:
    letter = DeadLetter.of(got(headers, body), "q", 1)
    json.loads(json.dumps(plain(whole(letter)), allow_nan=False))
    assert clipped(letter.reason).isprintable()
    assert clipped(letter.error).isprintable()


@pytest.mark.parametrize(
    ("body", "shown"), [(b'{"a": 1}', {"a": 1}), (b"\xffno", "\\xffno"), (b"", ""), (b"[" * 100_000, "[" * 100_000)]
)
def test_a_body_that_is_not_json_is_shown_as_text(body: bytes, shown: object) -> None:
    assert whole(DeadLetter.of(got(body=body), "q", 1))["body"] == shown


def test_cells_are_one_line_printable_and_bounded() -> None:
    assert clipped("a\nb\x1b[2J" + "c" * 100) == "a b\\x1b[2J" + "c" * 69 + "…"
    assert folded("n" * 80) == "\n".join(["n" * 36, "n" * 36, "n" * 8])


def test_groups_are_shown_in_80_columns_with_what_selects_them(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    groups = LetterGroups(most=2)
    for task in ("shop.welcome", "n" * 80, "third"):
        headers = {"aw-dead-reason": "failed", "aw-failed-at": 1_795_572_548_797, "aw-error": "no route \x1b[2J" * 9}
        groups.add(DeadLetter.of(got(headers, type=task), "emails.dead", 1))
    show_groups("emails.dead", list(groups))
    shown = capsys.readouterr().out
    assert "emails.dead: 3 dead letters in more than 2 groups" in shown
    assert next(iter(groups)).fingerprint in shown
    assert "others" in shown
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    others = group_summary(list(groups)[-1])
    assert (others["group"], others["count"], others["first"]) == (None, 1, "2026-11-25T02:09:08.797Z")


def test_a_group_of_the_brokers_letters_has_a_reason_in_words() -> None:
    assert reason_in_words("no-queue", by_broker=True) == "its queue did not exist when it was due"
    assert reason_in_words("maxlen", by_broker=True) == "RabbitMQ: its queue was full"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5s", 1.5), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600)],
)
def test_an_age_has_a_unit(text: str, seconds: float) -> None:
    assert seconds_of(text, "--older-than") == seconds


@pytest.mark.parametrize("text", ["", "d", "-1d", "1y", "1 d", "1e9", "inf"])
def test_an_age_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidArguments, match="--older-than"):
        seconds_of(text, "--older-than")


@pytest.mark.parametrize("choice", [{}, {"parked": True}, {"everything": True, "ids": ["x"]}])
def test_a_verb_needs_a_choice_and_only_one(choice: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Choice(**choice).check()


@pytest.mark.parametrize(
    "choice",
    [{"ids": ["x"]}, {"queues": ["q"]}, {"older_than": "0"}, {"everything": True, "queues": ["q"]}, {"groups": ["g"]}],
)
def test_a_condition_an_id_a_queue_or_all_is_a_choice(choice: dict[str, Any]) -> None:
    Choice(**choice).check()
