"""What is wrong with a topology, by what the broker's HTTP API returns."""

from __future__ import annotations

from typing import Any

import pytest

from amqpworker.cli.findings import (
    Finding,
    findings_of,
    grouped,
    leaders,
    member_findings,
    memberships,
    node_findings,
    running_nodes,
)
from amqpworker.cli.topology_command import show_leaders
from amqpworker.routing.topology import Topology, base, cancelled, control, scheduler, work_queue

NEEDED = base("amqpworker") + work_queue("amqpworker", "emails")


def listed_bindings(topology: Topology) -> list[dict[str, Any]]:
    return [
        {
            "source": one.source,
            "destination": one.queue,
            "destination_type": "queue",
            "routing_key": one.routing_key,
            "arguments": {},
        }
        for one in topology.bindings
    ]


def listed_queues(topology: Topology, **told: Any) -> list[dict[str, Any]]:
    """Return what the API lists; `told` is about the queue `emails`."""
    return [{"name": one.name, **(told if one.name == "emails" else {})} for one in topology.queues]


def test_what_is_as_declared_is_not_a_finding() -> None:
    told = {"policy": None, "effective_policy_definition": {}, "messages_dlx": 0}
    assert findings_of(NEEDED, listed_queues(NEEDED, **told), listed_bindings(NEEDED)) == []


def test_a_binding_that_is_missing_is_found() -> None:
    bindings = [one for one in listed_bindings(NEEDED) if one["source"] != "amqpworker.due"]
    (found,) = findings_of(NEEDED, listed_queues(NEEDED), bindings)
    assert (found.kind, found.name) == ("unbound", "emails")
    assert "'amqpworker.due' with routing key 'emails'" in found.text


@pytest.mark.parametrize(
    ("bound", "queue", "remedy"),
    [
        (10, "emails", "`amqpworker topology declare` removes this binding"),
        (None, "emails.due", "or that queue once it is empty: the app states no bound"),
    ],
)
def test_a_binding_by_which_each_due_message_comes_twice_is_found(bound: int | None, queue: str, remedy: str) -> None:
    needed = base("amqpworker") + work_queue("amqpworker", "emails", bound)
    rest = {"source": "amqpworker.due", "destination": queue, "destination_type": "queue", "routing_key": "emails"}
    foreign = {**rest, "destination": "audit"}
    (found,) = findings_of(needed, listed_queues(needed), [*listed_bindings(needed), rest, foreign])
    assert (found.kind, found.name) == ("doubled", queue)
    assert found.text.startswith(f"The queue {queue!r} is bound to 'amqpworker.due' beside ")
    assert remedy in found.text


def test_a_binding_of_an_exchange_is_not_taken_for_one_of_a_queue() -> None:
    bindings = [{**one, "destination_type": "exchange"} for one in listed_bindings(NEEDED)]
    assert len(findings_of(NEEDED, listed_queues(NEEDED), bindings)) == len(NEEDED.bindings)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("message-ttl", 1000),
        ("expires", 60_000),
        ("overflow", "drop-head"),
        ("delivery-limit", 5),
        ("max-length", 10),
        ("dead-letter-exchange", "elsewhere"),
    ],
)
def test_a_policy_that_overrides_an_argument_is_found_with_its_name_and_both_values(key: str, value: object) -> None:
    told = {"policy": "all", "effective_policy_definition": {key: value, "ha-mode": "all"}}
    (found,) = findings_of(NEEDED, listed_queues(NEEDED, **told), listed_bindings(NEEDED))
    assert found.kind == "policy"
    assert f"The policy 'all' sets {key} = {value!r} for queue 'emails'" in found.text


def test_a_policy_of_the_same_effect_is_not_a_finding() -> None:
    told = {"policy": "all", "effective_policy_definition": {"overflow": "reject-publish", "delivery-limit": 200}}
    assert findings_of(NEEDED, listed_queues(NEEDED, **told), listed_bindings(NEEDED)) == []


def test_the_queue_of_a_scheduler_without_a_single_active_consumer_is_found() -> None:
    needed = scheduler("amqpworker", "main")
    (declared,) = needed.queues
    listed = {"name": declared.name, "arguments": dict(declared.arguments)}
    assert findings_of(needed, [listed], listed_bindings(needed)) == []
    del listed["arguments"]["x-single-active-consumer"]
    (found,) = findings_of(needed, [listed], listed_bindings(needed))
    assert (found.kind, found.name) == ("differs", "amqpworker.schedule.main")
    assert "declared without x-single-active-consumer" in found.text


@pytest.mark.parametrize("key", ["message-ttl", "expires", "max-length"])
def test_a_policy_that_removes_tokens_is_found(key: str) -> None:
    needed = scheduler("amqpworker", "main")
    (declared,) = needed.queues
    listed = {"name": declared.name, "arguments": dict(declared.arguments), "effective_policy_definition": {key: 1}}
    (found,) = findings_of(needed, [{**listed, "policy": "all"}], listed_bindings(needed))
    assert (found.kind, found.name) == ("policy", "amqpworker.schedule.main")


@pytest.mark.parametrize(
    ("needed", "age", "told"),
    [
        (control("amqpworker"), "1h", "does not set it: what is paused may be forgotten; exclude the queue"),
        (cancelled("amqpworker"), "1h", "has '8D': exclude the queue"),
        (cancelled("amqpworker"), "8D", None),
    ],
)
def test_a_policy_that_gives_a_stream_another_age_is_found(needed: Topology, age: str, told: str | None) -> None:
    listed = [
        {"name": one.name, "policy": "all", "effective_policy_definition": {"max-age": age}} for one in needed.queues
    ]
    found = [one.text for one in findings_of(needed, listed, listed_bindings(needed))]
    assert len(found) == (told is not None)
    assert all(str(told) in text for text in found)


def test_letters_that_a_queue_cannot_hand_on_are_found() -> None:
    (found,) = findings_of(NEEDED, listed_queues(NEEDED, messages_dlx=7), listed_bindings(NEEDED))
    assert found.kind == "stuck"
    assert "holds 7 messages" in found.text


def test_what_could_not_be_checked_for_one_reason_is_one_line() -> None:
    findings = [
        Finding("missing", "a", "There is no queue 'a'."),
        *(Finding("unknown", name, f"The queue {name!r} …", "user 'op' lacks it") for name in "bcd"),
        Finding("unknown", "e", "The queue 'e' is down."),
    ]
    assert list(grouped(findings, 9)) == [
        ("missing", "There is no queue 'a'."),
        ("unknown", "The queue 'e' is down."),
        ("unknown", "3 of 9 exchanges and queues could not be compared: user 'op' lacks it."),
    ]


def cluster(*running: str) -> list[dict[str, Any]]:
    """Return the API's list of three nodes, as RabbitMQ 3.10.8 gives it."""
    return [{"name": name, "running": name in running, "type": "disc"} for name in ("rabbit@a", "rabbit@b", "rabbit@c")]


def held_by(leader: str | None, online: list[str]) -> dict[str, Any]:
    """Return what the API returns for a quorum queue; without a leader it has no such key (3.10.8)."""
    told: dict[str, Any] = {"type": "quorum", "members": ["rabbit@c", "rabbit@a", "rabbit@b"], "online": online}
    return told if leader is None else {**told, "leader": leader}


ALL = ["rabbit@a", "rabbit@b", "rabbit@c"]


@pytest.mark.parametrize(
    ("leader", "online", "nodes", "kind", "told"),
    [
        ("rabbit@a", ALL, cluster(*ALL), None, ""),
        ("rabbit@a", ALL, None, None, ""),
        (None, ["rabbit@b"], cluster("rabbit@b"), "minority", "no majority"),
        ("rabbit@b", ["rabbit@b"], cluster("rabbit@b"), "minority", "these are down: rabbit@a, rabbit@c"),
        # One of the two lists is behind the other for a while.
        ("rabbit@a", ["rabbit@a", "rabbit@b"], cluster("rabbit@b"), "minority", "no majority"),
        ("rabbit@b", ["rabbit@b"], cluster(*ALL), "minority", "no majority"),
        ("rabbit@b", ["rabbit@a", "rabbit@b"], cluster("rabbit@a", "rabbit@b"), "degraded", "these are down: rabbit@c"),
        ("rabbit@c", ALL, cluster("rabbit@a", "rabbit@b"), "leaderless", "no leader"),
        (None, ALL, cluster(*ALL), "leaderless", "being elected"),
    ],
)
def test_a_queue_that_lacks_members_is_reported_with_what_that_means(
    leader: str | None, online: list[str], nodes: list[dict[str, Any]] | None, kind: str | None, told: str
) -> None:
    held = memberships(NEEDED, listed_queues(NEEDED, **held_by(leader, online)), running_nodes(nodes))
    found = list(member_findings(held))
    assert [(one.kind, one.name) for one in found] == ([] if kind is None else [(kind, "emails")])
    assert all(told in one.text for one in found)


def test_a_stream_whose_leader_the_api_does_not_have_yet_is_not_reported() -> None:
    needed = control("amqpworker")
    for online, found in ((ALL, []), (ALL[:1], ["minority"])):
        listed = [{"name": one.name, **held_by(None, online)} for one in needed.queues]
        held = memberships(needed, listed, None)
        assert [one.kind for one in member_findings(held)] == found


def test_streams_are_not_counted_as_quorum_queues(capsys: pytest.CaptureFixture[str]) -> None:
    needed = NEEDED + control("amqpworker")
    listed = [{"name": one.name, **held_by("rabbit@a", ALL)} for one in needed.queues]
    show_leaders(memberships(needed, listed, None))
    count = len(needed.queues)
    assert capsys.readouterr().out == (
        f"Quorum queues: {count - 1}, streams: 1, with up to 3 members; leaders: {count} on rabbit@a.\n"
    )


def test_queues_in_the_same_state_are_one_line() -> None:
    needed = NEEDED + work_queue("amqpworker", "reports")
    listed = [{"name": one.name, **held_by("rabbit@b", ["rabbit@b"])} for one in needed.queues]
    held = memberships(needed, listed, None)
    lines = list(grouped(member_findings(held), 99))
    assert len(lines) == 1
    assert lines[0][0] == "minority"
    assert lines[0][1].startswith(
        f"{len(needed.queues)} queues have no majority: of the members rabbit@a, rabbit@b, rabb"
    )
    assert f" and {len(needed.queues) - 3} more)" in lines[0][1]
    assert leaders(held) == {"rabbit@b": len(needed.queues)}


def test_nodes_that_are_down_are_reported_where_the_queues_are_not_known() -> None:
    assert list(node_findings(cluster(*ALL))) == []
    (found,) = node_findings(cluster("rabbit@b"))
    assert found.kind == "minority"
    assert "no majority" in found.text
    (found,) = node_findings(cluster("rabbit@a", "rabbit@b"))
    assert (found.kind, found.name) == ("degraded", "rabbit@c")
    assert found.text == "Of the nodes rabbit@a, rabbit@b, rabbit@c these are down: rabbit@c."
