"""The names, arguments and order of what is declared, and the checks of names that users give."""

from __future__ import annotations

import pytest

from amqpworker.errors import ConfigError
from amqpworker.routing.topology import (
    LEVELS,
    Binding,
    Exchange,
    Names,
    Queue,
    Topology,
    Unbinding,
    base,
    cancelled,
    check_namespace,
    check_queue_name,
    check_scheduler_name,
    control,
    dead_queue,
    ladder,
    work_queue,
)

NAMES = Names("amqpworker")


def exchange(topology: Topology, name: str) -> Exchange:
    (found,) = [one for one in topology.exchanges if one.name == name]
    return found


def queue(topology: Topology, name: str) -> Queue:
    (found,) = [one for one in topology.queues if one.name == name]
    return found


def everything() -> Topology:
    return base("amqpworker") + ladder("amqpworker") + work_queue("amqpworker", "emails")


def test_a_work_queue_dead_letters_at_least_once_under_its_own_name() -> None:
    assert queue(work_queue("amqpworker", "emails"), "emails").arguments == {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "amqpworker.dead",
        "x-dead-letter-routing-key": "emails",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-delivery-limit": 200,
    }


def test_a_work_queue_takes_new_messages_and_due_ones_and_its_dead_letters_have_a_queue() -> None:
    assert work_queue("amqpworker", "emails").bindings == (
        Binding("amqpworker.dead", "emails.dead", "emails"),
        Binding("amqpworker.due", "emails", "emails"),
        Binding("amqpworker.tasks", "emails", "emails"),
    )


@pytest.mark.parametrize("name", ["emails.dead", "amqpworker.parked"])
def test_a_queue_that_keeps_letters_never_gives_them_up_after_many_looks(name: str) -> None:
    assert queue(everything(), name).arguments == {"x-queue-type": "quorum", "x-delivery-limit": 2_000_000_000}


def test_new_messages_without_a_queue_are_returned_and_accepted_ones_are_parked() -> None:
    topology = base("amqpworker")
    assert exchange(topology, "amqpworker.tasks") == Exchange("amqpworker.tasks", "direct", {})
    parks = {"alternate-exchange": "amqpworker.parked"}
    assert exchange(topology, "amqpworker.due") == Exchange("amqpworker.due", "direct", parks)
    assert exchange(topology, "amqpworker.dead") == Exchange("amqpworker.dead", "direct", parks)
    assert exchange(topology, "amqpworker.parked") == Exchange("amqpworker.parked", "fanout", {})
    assert Binding("amqpworker.parked", "amqpworker.parked") in topology.bindings


@pytest.mark.parametrize(
    ("number", "below", "milliseconds"),
    [
        (0, "amqpworker.due", 125),
        (1, "amqpworker.delay.00", 250),
        (30, "amqpworker.delay.29", 134_217_728_000),
    ],
)
def test_a_level_waits_twice_as_long_as_the_one_below_and_hands_down_to_it(
    number: int, below: str, milliseconds: int
) -> None:
    topology, name = ladder("amqpworker"), f"amqpworker.delay.{number:02d}"
    assert exchange(topology, name) == Exchange(name, "headers", {"alternate-exchange": below})
    assert queue(topology, name).arguments == {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": below,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-message-ttl": milliseconds,
        "x-delivery-limit": 2_000_000_000,
    }
    (binding,) = [one for one in topology.bindings if one.queue == name]
    assert binding == Binding(name, name, "", {"x-match": "all", f"aw-wait-{number:02d}": None})


def test_the_ladder_needs_no_queue() -> None:
    topology = ladder("amqpworker")
    assert len([one for one in topology.queues if ".delay." in one.name]) == LEVELS
    assert exchange(topology, "amqpworker.due").arguments == {"alternate-exchange": "amqpworker.parked"}
    assert queue(topology, "amqpworker.parked") in base("amqpworker").queues


def test_an_alternate_or_dead_letter_exchange_is_declared_before_what_names_it() -> None:
    seen: set[str] = set()
    for item in everything():
        match item:
            case Exchange(name, _, arguments):
                assert arguments.get("alternate-exchange", name) in {name, *seen}
                seen.add(name)
            case Queue(_, arguments):
                assert arguments.get("x-dead-letter-exchange") in {None, *seen}


def test_a_declarer_meets_exchanges_then_queues_then_bindings() -> None:
    kinds = [type(item) for item in everything()]
    assert kinds == sorted(kinds, key=[Exchange, Queue, Binding].index)
    assert type(list(work_queue("amqpworker", "emails", 5))[-1]) is Unbinding


def test_new_messages_are_led_in_last() -> None:
    assert work_queue("amqpworker", "emails").bindings[-1].source == NAMES.tasks


def test_a_bound_is_met_by_new_messages_and_those_that_are_due_have_a_queue_beside_it() -> None:
    plain, bounded = work_queue("amqpworker", "emails"), work_queue("amqpworker", "emails", 1000)
    of_emails = queue(plain, "emails").arguments
    assert queue(bounded, "emails").arguments == {**of_emails, "x-max-length": 1000}
    assert queue(bounded, "emails.due").arguments == of_emails
    assert queue(bounded, "emails.dead") == queue(plain, "emails.dead")
    assert bounded.bindings == (
        Binding("amqpworker.dead", "emails.dead", "emails"),
        Binding("amqpworker.due", "emails.due", "emails"),
        Binding("amqpworker.tasks", "emails", "emails"),
    )
    assert bounded.unbindings == (Unbinding("amqpworker.due", "emails", "emails"),)
    assert (base("amqpworker") + bounded + bounded).unbindings == bounded.unbindings


def test_adding_keeps_the_order_and_drops_what_is_there_already() -> None:
    assert base("amqpworker") + base("amqpworker") == base("amqpworker")
    assert (base("amqpworker") + ladder("amqpworker")).exchanges[:4] == base("amqpworker").exchanges
    assert Topology() + base("amqpworker") == base("amqpworker")


def test_the_namespace_prefixes_everything_but_the_names_of_work_queues() -> None:
    topology = base("shop") + ladder("shop") + work_queue("shop", "emails")
    assert all(one.name.startswith("shop.") for one in topology.exchanges)
    assert {one.name for one in topology.queues if not one.name.startswith("shop.")} == {"emails", "emails.dead"}
    assert "amqpworker" not in repr(topology)


@pytest.mark.parametrize("name", ["emails", "e", "mail.out", "größe", "billing/eu", "x" * 250, "amqp", "shop.tasks"])
def test_a_queue_name_that_amqp_takes_is_taken(name: str) -> None:
    check_queue_name(name)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "Queue name must be a non-empty string, got ''"),
        ("x" * 251, "at most 250 bytes"),
        ("é" * 126, "at most 250 bytes"),
        ("amq.emails", "not begin with 'amq.'"),
        ("a\nb", "control characters"),
        ("a\x00", "control characters"),
        ("\ud800", "UTF-8"),
        ("emails.dead", "must not end in .dead or .due"),
        ("emails.due", "must not end in .dead or .due"),
        ("amqpworker.parked", "is reserved for amqpworker"),
        ("amqpworker.tasks", "is reserved for amqpworker"),
        ("amqpworker.delay.07", "is reserved for amqpworker"),
        ("amqpworker.control", "is reserved for amqpworker"),
        (None, "got None"),
        (b"emails", "got b'emails'"),
    ],
)
def test_a_queue_name_that_cannot_be_is_refused_with_the_reason(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_queue_name(name)


def test_the_names_that_are_kept_are_those_of_the_namespace() -> None:
    check_queue_name("amqpworker.parked", "shop")
    with pytest.raises(ConfigError, match="is reserved"):
        check_queue_name("shop.parked", "shop")


@pytest.mark.parametrize("namespace", ["amqpworker", "shop", "team.shop", "x" * 245])
def test_a_namespace_whose_names_amqp_takes_is_taken(namespace: str) -> None:
    check_namespace(namespace)
    assert max(len(name) for name in Names(namespace).all()) <= 255


@pytest.mark.parametrize("namespace", ["", "amq", "amq.shop", "a\tb", "x" * 247])
def test_a_namespace_whose_names_amqp_refuses_is_refused(namespace: str) -> None:
    with pytest.raises(ConfigError, match=r"^Namespace name must"):
        check_namespace(namespace)


def test_the_dead_letters_of_a_queue_have_its_name() -> None:
    assert dead_queue("emails") == "emails.dead"


@pytest.mark.parametrize("name", ["", "-x", "--check", "n" * 240, "a\nb", 5])
def test_a_name_that_a_scheduler_cannot_have_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match="Scheduler name must"):
        check_scheduler_name(name)


@pytest.mark.parametrize("name", ["main", "night shift", "nächtlich", "a.b-c"])
def test_any_other_name_is_valid_for_a_scheduler(name: str) -> None:
    check_scheduler_name(name)


def test_what_is_paused_is_a_stream_without_an_age_that_only_its_own_exchange_feeds() -> None:
    assert control("amqpworker") == Topology(
        (Exchange("amqpworker.control", "fanout"),),
        (
            Queue(
                "amqpworker.control",
                {
                    "x-queue-type": "stream",
                    "x-stream-max-segment-size-bytes": 1_000_000,
                    "x-max-length-bytes": 16_000_000,
                },
            ),
        ),
        (Binding("amqpworker.control", "amqpworker.control"),),
    )


def test_cancels_are_a_stream_of_eight_days_that_any_sender_and_the_ladder_reach() -> None:
    assert cancelled("amqpworker") == Topology(
        (),
        (
            Queue(
                "amqpworker.cancelled",
                {"x-queue-type": "stream", "x-stream-max-segment-size-bytes": 1_000_000, "x-max-age": "8D"},
            ),
        ),
        (
            Binding("amqpworker.due", "amqpworker.cancelled", "amqpworker.cancelled"),
            Binding("amqpworker.tasks", "amqpworker.cancelled", "amqpworker.cancelled"),
        ),
    )
