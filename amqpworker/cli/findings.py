"""
What the broker's HTTP API shows and AMQP does not: bindings, policies, stuck dead letters, members that are down.

Decides what is wrong for the topology that we need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from amqpworker.routing.topology import Topology, Unbinding, due_queue

OVERRIDING = (
    "message-ttl",
    "expires",
    "overflow",
    "delivery-limit",
    "max-length",
    "max-length-bytes",
    "dead-letter-exchange",
    "dead-letter-routing-key",
    "dead-letter-strategy",
    "max-age",
)
"""Keys of a policy that change what happens to a message, whatever the arguments of its queue."""

STREAM = "stream"
SINGLE_ACTIVE = "x-single-active-consumer"

MAX_NAMED = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """
    Something wrong; `kind` is one word for programs, `text` a sentence for people.

    `reason` groups what could not be compared for the same reason, `state` groups queues that are in the same state.
    """

    kind: str
    name: str
    text: str
    reason: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class Membership:
    """The nodes with a member of a quorum queue or a stream; the `leader` is one of those that are `up`, or None."""

    members: tuple[str, ...]
    up: tuple[str, ...]
    leader: str | None
    type: str = "quorum"


def grouped(findings: Iterable[Finding], compared: int) -> Iterator[tuple[str, str]]:
    """Yield kind and text of each line to show; findings of one state or one reason share a line."""
    findings = list(findings)
    reasons: dict[str, list[Finding]] = {}
    states: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.state:
            states.setdefault(finding.state, []).append(finding)
    for finding in findings:
        if finding.reason:
            reasons.setdefault(finding.reason, []).append(finding)
        elif finding.state:
            if alike := states.pop(finding.state, []):
                yield finding.kind, finding.text if len(alike) == 1 else _of_several(alike)
        else:
            yield finding.kind, finding.text
    for reason, alike in reasons.items():
        parts = "exchanges and queues" if compared > 1 else "exchange or queue"
        end = "" if reason.endswith(("?", ".")) else "."
        yield alike[0].kind, f"{len(alike)} of {compared} {parts} could not be compared: {reason}{end}"


def _of_several(alike: list[Finding]) -> str:
    named = ", ".join(repr(finding.name) for finding in alike[:MAX_NAMED])
    more = f" and {len(alike) - MAX_NAMED} more" if len(alike) > MAX_NAMED else ""
    return f"{len(alike)} queues have {alike[0].state} ({named}{more})."


def memberships(
    topology: Topology, queues: Iterable[Mapping[str, Any]], running: frozenset[str] | None
) -> dict[str, Membership]:
    """
    Return the members of each quorum queue and stream, from the API's list of queues and the running nodes, if those are known.

    A node counts as up if both lists show it: each of them shows a node for a while after it ended (RabbitMQ 3.10.8).
    """
    listed = {queue["name"]: queue for queue in queues}
    found = {}
    for queue in topology.queues:
        reported = listed.get(queue.name, {})
        members = tuple(sorted(reported.get("members") or ()))
        online = reported.get("online") or ()
        up = tuple(node for node in members if node in online and (running is None or node in running))
        leader = reported.get("leader")
        # Of a stream that was declared a moment ago, the API does not have the leader yet.
        is_new = leader is None and up == members and queue.arguments.get("x-queue-type") == STREAM
        if members and not is_new:
            kind = queue.arguments.get("x-queue-type", "quorum")
            found[queue.name] = Membership(members, up, leader if leader in up else None, kind)
    return found


def member_findings(members: Mapping[str, Membership]) -> Iterator[Finding]:
    """Yield the queues that lack members, and what that means for them."""
    for name, queue in members.items():
        if len(queue.up) == len(queue.members) and queue.leader is not None:
            continue
        down = [member for member in queue.members if member not in queue.up]
        details = f"of the members {', '.join(queue.members)} these are down: {', '.join(down)}"
        if 2 * len(queue.up) <= len(queue.members):
            kind, state = "minority", f"no majority: {details}; it accepts no messages until a majority is up"
        elif queue.leader is None:
            kind, state = "leaderless", f"no leader{f': {details}' if down else ': one is being elected'}"
        else:
            kind, state = "degraded", f"fewer members than it should: {details}"
        yield Finding(kind, name, f"The queue {name!r} has {state}.", state=state)


def running_nodes(nodes: Iterable[Mapping[str, Any]] | None) -> frozenset[str] | None:
    """Return the running nodes, from the API's list of nodes."""
    return None if nodes is None else frozenset(node["name"] for node in nodes if node.get("running"))


def node_findings(nodes: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield that nodes are not running, for when the queues themselves are not known."""
    names = sorted(node["name"] for node in nodes)
    running = running_nodes(nodes) or frozenset()
    down = [name for name in names if name not in running]
    if not down:
        return
    text = f"Of the nodes {', '.join(names)} these are down: {', '.join(down)}"
    if 2 * len(running) <= len(names):
        yield Finding("minority", down[0], f"{text}: a quorum queue with a member on each has no majority.")
    else:
        yield Finding("degraded", down[0], f"{text}.")


def leaders(members: Mapping[str, Membership]) -> dict[str, int]:
    """Return how many of the queues each node leads."""
    return dict(Counter(queue.leader for queue in members.values() if queue.leader is not None))


def findings_of(
    topology: Topology, queues: Iterable[Mapping[str, Any]], bindings: Iterable[Mapping[str, Any]]
) -> list[Finding]:
    """Return what is wrong, from the API's lists of the queues and bindings of one virtual host."""
    listed = {queue["name"]: queue for queue in queues}
    found = [*unbound(topology, bindings), *doubled(topology, bindings)]
    for queue in topology.queues:
        if (reported := listed.get(queue.name)) is not None:
            found += _consumer_findings(queue.name, queue.arguments, reported)
            found += _policy_findings(queue.name, queue.arguments, reported)
            found += _stuck_findings(queue.name, reported)
    return found


def unbound(topology: Topology, bindings: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield the bindings that are missing."""
    existing = {
        (binding["source"], binding["destination"], binding["routing_key"])
        for binding in bindings
        if binding.get("destination_type") == "queue"
    }
    for binding in topology.bindings:
        if (binding.source, binding.queue, binding.routing_key) not in existing:
            key = f" with routing key {binding.routing_key!r}" if binding.routing_key else ""
            yield Finding(
                "unbound", binding.queue, f"The queue {binding.queue!r} is not bound to {binding.source!r}{key}."
            )


def doubled(topology: Topology, bindings: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """
    Yield the bindings by which messages of a work queue come twice: by it, and by the queue beside it that a bound requires.

    Each is the rest of a time before the queue had a bound, or after it.
    """
    right = {(one.source, one.routing_key): one.queue for one in topology.bindings}
    for binding in bindings:
        source, key, queue = binding["source"], binding["routing_key"], binding["destination"]
        other = right.get((source, key), queue)
        if {queue, other} == {key, due_queue(key)} and binding.get("destination_type") == "queue":
            if Unbinding(source, queue, key) in topology.unbindings:
                remedy = "`amqpworker topology declare` removes this binding"
            else:
                remedy = "remove this binding, or that queue once it is empty: the app states no bound"
            text = (
                f"The queue {queue!r} is bound to {source!r} beside {other!r}, so each message from there comes twice"
            )
            yield Finding("doubled", queue, f"{text}: {remedy}.")


def _consumer_findings(name: str, arguments: Mapping[str, Any], reported: Mapping[str, Any]) -> Iterator[Finding]:
    declared = reported.get("arguments") or {}
    if arguments.get(SINGLE_ACTIVE) and not declared.get(SINGLE_ACTIVE):
        yield Finding(
            "differs",
            name,
            f"The queue {name!r} was declared without {SINGLE_ACTIVE}: each of its schedulers takes itself for the leader. "
            f"Stop them, delete the queue, and declare it again.",
        )


def _policy_findings(name: str, arguments: Mapping[str, Any], reported: Mapping[str, Any]) -> Iterator[Finding]:
    # RabbitMQ takes the policy's value for some keys and the smaller one for others
    # (https://www.rabbitmq.com/docs/policies#precedence).
    effective = reported.get("effective_policy_definition") or {}
    by = " and ".join(f"{reported[key]!r}" for key in ("policy", "operator_policy") if reported.get(key))
    for key in OVERRIDING:
        wanted = arguments.get(f"x-{key}")
        if key in effective and effective[key] != wanted:
            declared = "does not set it" if wanted is None else f"has {wanted!r}"
            is_stream = arguments.get("x-queue-type") == STREAM
            lost = "what is paused may be forgotten; " if key == "max-age" and is_stream and wanted is None else ""
            yield Finding(
                "policy",
                name,
                f"The policy {by} sets {key} = {effective[key]!r} for queue {name!r}, whose declaration {declared}: "
                f"{lost}exclude the queue from the policy.",
            )


def _stuck_findings(name: str, reported: Mapping[str, Any]) -> Iterator[Finding]:
    count = reported.get("messages_dlx") or 0
    if count > 0:
        yield Finding(
            "stuck",
            name,
            f"The queue {name!r} holds {count} messages that it could not dead-letter: no queue is bound for them to its "
            f"dead-letter exchange, or that queue is full.",
        )
