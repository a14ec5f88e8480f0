"""Names, groups and selections of dead letters, and letters as lines of a file."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.errors import InvalidArguments
from amqpworker.model.dead_letter import DeadLetter
from amqpworker.model.letter_dump import dump_letter, load_letter
from amqpworker.model.letter_groups import LetterGroups
from amqpworker.model.letter_selection import Selection
from amqpworker.model.message import Delivery, Properties
from amqpworker.routing.envelope import publication_of_letter, publication_of_replay
from amqpworker.routing.topology import Names, dead_queue_of, work_queue_of

AT = datetime(2026, 11, 30, 2, 9, 8, 797000, tzinfo=UTC)
NAMES = Names()
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.datetimes(timezones=st.just(UTC))
    | st.builds(Decimal, st.integers(-(2**31), 2**31 - 1)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def letter(
    headers: dict[str, Any] | None = None, *, queue: str = "emails.dead", body: bytes = b"{}", **properties: Any
) -> DeadLetter:
    message = Delivery(1, False, "amqpworker.dead", "emails", Properties(headers=headers, **properties), body)
    return DeadLetter.of(message, queue, 1)


def failed(text: str, at: datetime = AT, **properties: Any) -> DeadLetter:
    headers = {
        "aw-dead-reason": "failed",
        "aw-error-type": "ValueError",
        "aw-error": text,
        "aw-failed-at": at.isoformat(),
    }
    return letter(headers, **properties)


# ---- names --------------------------------------------------------------------------------------------------------------


def test_a_letter_is_named_by_its_id() -> None:
    assert failed("x", message_id="id-1").name == "id-1"


def test_a_letter_without_an_id_is_named_by_its_queue_body_and_time_of_death() -> None:
    one = failed("x", body=b"a").name
    assert one.startswith("sha256:")
    assert len(one) == len("sha256:") + 12
    assert one == failed("y", body=b"a").name
    others = [
        failed("x", body=b"b"),
        failed("x", queue="sms.dead", body=b"a"),
        failed("x", AT + timedelta(milliseconds=1), body=b"a"),
        letter(body=b"a"),
    ]
    assert len({one, *(other.name for other in others)}) == 5


@pytest.mark.parametrize(
    ("queue", "dead"),
    [("emails", "emails.dead"), ("emails.dead", "emails.dead"), ("amqpworker.parked", "amqpworker.parked")],
)
def test_a_queue_means_its_dead_letters(queue: str, dead: str) -> None:
    assert dead_queue_of(queue) == dead


def test_the_work_queue_of_a_letter_is_that_of_its_dead_letter_queue_and_of_a_parked_one_its_routing_key() -> None:
    assert work_queue_of("emails.dead", "emails.dead") == "emails", "as a shovel leaves it"
    assert work_queue_of("amqpworker.parked", "emails") == "emails"


# ---- selections ---------------------------------------------------------------------------------------------------------


def test_a_selection_without_conditions_matches_each_letter() -> None:
    assert Selection().matches(letter())


def test_a_selection_matches_what_fits_all_its_conditions() -> None:
    one = failed("no user 7", message_id="id-1", type="shop.welcome")
    fits = {
        "names": frozenset({"id-1", "id-2"}),
        "groups": frozenset({one.fingerprint}),
        "tasks": frozenset({"shop.welcome"}),
        "reasons": frozenset({"failed"}),
        "died_before": AT + timedelta(seconds=1),
    }
    assert Selection(**fits).matches(one)  # type: ignore[arg-type]
    for name in fits:
        other = AT if name == "died_before" else frozenset({"other"})
        assert not Selection(**{**fits, name: other}).matches(one), name  # type: ignore[arg-type]


def test_a_letter_without_a_time_is_not_older_than_anything() -> None:
    assert not Selection(died_before=AT).matches(letter())


# ---- groups -------------------------------------------------------------------------------------------------------------


def test_letters_are_counted_by_queue_task_and_fingerprint_the_largest_group_first() -> None:
    groups = LetterGroups()
    groups.add(failed("other", type="a"))
    for number in range(3):
        groups.add(failed(f"no user {number}", AT + timedelta(hours=number % 2), type="a"))
    groups.add(failed("no user 9", type="b"))
    groups.add(failed("no user 9", type="a", queue="sms.dead"))
    found = [(group.queue, group.task, group.count) for group in groups]
    assert found == [("emails.dead", "a", 3), ("emails.dead", "a", 1), ("emails.dead", "b", 1), ("sms.dead", "a", 1)]
    largest = next(iter(groups))
    assert (largest.first, largest.last) == (AT, AT + timedelta(hours=1))
    assert (largest.reason, largest.error_type, largest.error) == ("failed", "ValueError", "no user 0")
    assert groups.count == 6


def test_groups_beyond_the_bound_are_the_others_of_their_queue() -> None:
    groups = LetterGroups(most=2)
    for kind in ("a", "b", "c", "d", "a"):
        groups.add(failed("x", type=kind))
    groups.add(failed("x", type="a", queue="sms.dead"))
    found = [(group.queue, group.task, group.count, group.is_others) for group in groups]
    assert found == [
        ("emails.dead", "a", 2, False),
        ("emails.dead", "b", 1, False),
        ("emails.dead", "", 2, True),
        ("sms.dead", "", 1, True),
    ]


# ---- lines of a file ------------------------------------------------------------------------------------------------------


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=5), st.binary(max_size=20))
def test_a_letter_is_the_same_after_it_was_written_and_read(headers: dict[str, Any], body: bytes) -> None:
    one = letter(headers, body=body, message_id="id-1", type="a", priority=3, timestamp=7)
    line = dump_letter(one)
    assert "\n" not in line
    assert line.isascii()
    read = load_letter(line, 5)
    assert (read.message.body, read.queue, read.name) == (body, one.queue, one.name)
    assert read.message.properties.present() == one.message.properties.present()


def test_a_line_shows_what_people_search_for() -> None:
    line = json.loads(dump_letter(failed("x", type="a", body=b"\xff")))
    assert (line["task"], line["reason"], line["failed_at"]) == ("a", "failed", "2026-11-30T02:09:08.797Z")
    assert line["name"].startswith("sha256:")
    assert line["body"] == {"$bytes": "/w=="}


GOOD = {"queue": "emails.dead", "routing_key": "emails", "properties": {}, "headers": {}, "body": "{}"}


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (dump_letter(failed("x"))[:-5], "Line 7 is not JSON: the file may have been cut off."),
        ("[]", "Line 7 is not a dead letter: it is not an object."),
        ("{}", "Line 7 is not a dead letter: it has no 'queue'."),
        (json.dumps({**GOOD, "queue": ""}), "Line 7: 'queue' must be 1 to 255 bytes of text."),
        (json.dumps({**GOOD, "headers": {"x": {"$odd": 1}}}), "Line 7: its properties, headers or body are not valid"),
        (json.dumps({**GOOD, "properties": {"priority": "x"}}), "not valid (property 'priority')"),
        (json.dumps({**GOOD, "properties": {"headers": {}}}), "not valid (property 'headers')"),
        (json.dumps({**GOOD, "body": 5}), "not valid"),
        (json.dumps({**GOOD, "body": {"$bytes": "é"}}), "not valid"),
        (json.dumps({**GOOD, "properties": []}), "not valid"),
    ],
)
def test_a_line_that_is_not_a_letter_is_named(line: str, problem: str) -> None:
    with pytest.raises(InvalidArguments) as raised:
        load_letter(line, 7)
    assert problem in str(raised.value)


# ---- publications -------------------------------------------------------------------------------------------------------


def test_a_replay_starts_again_with_its_id_and_without_the_evidence_by_the_way_of_what_is_due() -> None:
    one = letter(
        {
            "aw-dead-reason": "failed",
            "aw-error": "x",
            "aw-attempt": 4,
            "aw-first-sent": "2026-11-30T01:00:00.000Z",
            "aw-expires": "2026-11-30T01:00:01.000Z",
            "aw-unknown-since": "2026-11-30T01:00:01.000Z",
            "x-death": [],
            "tenant": "acme",
        },
        message_id="id-1",
        type="a",
        expiration="1",
        content_encoding="gzip",
        body=b"abc",
    )
    replay = publication_of_replay(one, "emails", NAMES, AT.timestamp())
    assert (replay.exchange, replay.routing_key, replay.body) == ("amqpworker.due", "emails", b"abc")
    assert replay.properties.headers == {
        "aw-first-sent": "2026-11-30T01:00:00.000Z",
        "aw-replayed": "2026-11-30T02:09:08.797Z",
        "tenant": "acme",
    }
    present = replay.properties.present()
    assert (present["message_id"], present["type"], present["delivery_mode"]) == ("id-1", "a", 2)
    assert present["content_encoding"] == "gzip", "it would be refused without its reason otherwise"
    assert "expiration" not in present


def test_a_copy_of_a_letter_goes_where_it_is_with_its_evidence() -> None:
    copy = publication_of_letter(failed("x", message_id="id-1", type="a"), NAMES, b"new")
    assert (copy.exchange, copy.routing_key, copy.body) == ("amqpworker.dead", "emails", b"new")
    assert copy.properties.headers is not None
    assert copy.properties.headers["aw-error"] == "x"
    assert copy.properties.message_id == "id-1"
    parked = publication_of_letter(letter(queue="amqpworker.parked"), NAMES)
    assert (parked.exchange, parked.routing_key, parked.body) == ("amqpworker.parked", "emails", b"{}")


def test_what_the_broker_has_recorded_is_kept_in_a_copy_as_ours() -> None:
    one = letter({"x-death": [{"reason": "delivery_limit", "time": AT.replace(microsecond=0), "queue": "emails"}]})
    copy = publication_of_letter(one, NAMES)
    assert copy.properties.headers == {
        "aw-dead-reason": "delivery_limit",
        "aw-failed-at": "2026-11-30T02:09:08.000Z",
    }
    again = letter(copy.properties.headers)
    assert again.name == one.name
    assert again.fingerprint == one.fingerprint
