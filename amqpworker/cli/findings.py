"""
What the broker's HTTP API tells that AMQP does not: bindings, policies, letters that are stuck, members that are down.

Decides what of it is wrong for the topology that we need. Asking the API is `topology`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from amqpworker.routing.topology import Topology

__all__ = [
    "Finding",
    "Membership",
    "findings_of",
    "gathered",
    "leaders",
    "member_findings",
    "memberships",
    "node_findings",
    "policy_findings",
    "running_nodes",
    "stuck_findings",
    "unbound",
]

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
)
"""Keys of a policy that change what becomes of a message, whatever a queue's arguments say."""

MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """
    Something that is not as it should be; `kind` is one word for programs, `text` a sentence for people.

    `why` is the same for whatever could not be looked at for the same reason, `state` for queues that are in the same.
    """

    kind: str
    name: str
    text: str
    why: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class Membership:
    """The nodes that hold a quorum queue: those that are `up` can take part, and the `leader` is one of them, or None."""

    members: tuple[str, ...]
    up: tuple[str, ...]
    leader: str | None


def gathered(findings: Iterable[Finding], looked_at: int) -> Iterator[tuple[str, str]]:
    """Yield kind and text of each line to show; one line for what is in one state, or was not compared for one reason."""
    findings = list(findings)
    reasons: dict[str, list[Finding]] = {}
    states: dict[str, list[Finding]] = {}
    for one in findings:
        if one.state:
            states.setdefault(one.state, []).append(one)
    for one in findings:
        if one.why:
            reasons.setdefault(one.why, []).append(one)
        elif one.state:
            if alike := states.pop(one.state, []):
                yield one.kind, one.text if len(alike) == 1 else of_several(alike)
        else:
            yield one.kind, one.text
    for why, of_it in reasons.items():
        parts = "exchanges and queues" if looked_at > 1 else "exchange or queue"
        yield of_it[0].kind, f"{len(of_it)} of {looked_at} {parts} could not be compared: {sentence(why)}"


def sentence(text: str) -> str:
    """Return a text with an end."""
    return text if text.endswith(("?", ".")) else f"{text}."


def of_several(alike: list[Finding]) -> str:
    """Return the line for queues that are in the same state."""
    named = ", ".join(repr(one.name) for one in alike[:MOST_NAMED])
    more = f" and {len(alike) - MOST_NAMED} more" if len(alike) > MOST_NAMED else ""
    return f"{len(alike)} queues have {alike[0].state} ({named}{more})."


def memberships(
    topology: Topology, queues: Iterable[Mapping[str, Any]], running: frozenset[str] | None
) -> dict[str, Membership]:
    """
    Return who holds each quorum queue, by the API's list of queues and the nodes that are running, if that is known.

    A node counts as up if both say so: after its end each of them still shows it for a while (RabbitMQ 3.10.8).
    """
    listed = {queue["name"]: queue for queue in queues}
    found = {}
    for queue in topology.queues:
        told = listed.get(queue.name, {})
        members = tuple(sorted(told.get("members") or ()))
        up = tuple(one for one in members if one in (told.get("online") or ()) and (running is None or one in running))
        leader = told.get("leader")
        if members:
            found[queue.name] = Membership(members, up, leader if leader in up else None)
    return found


def member_findings(held: Mapping[str, Membership]) -> Iterator[Finding]:
    """Yield the queues that lack members, with what that means for them."""
    for name, one in held.items():
        if len(one.up) == len(one.members) and one.leader is not None:
            continue
        down = [member for member in one.members if member not in one.up]
        told = f"of the members {', '.join(one.members)} these are down: {', '.join(down)}"
        if 2 * len(one.up) <= len(one.members):
            kind, state = "minority", f"no majority: {told}; it takes no message until most are up"
        elif one.leader is None:
            kind, state = "leaderless", f"no leader{f': {told}' if down else ', which is being elected'}"
        else:
            kind, state = "degraded", f"fewer members than it should: {told}"
        yield Finding(kind, name, f"The queue {name!r} has {state}.", state=state)


def running_nodes(nodes: Iterable[Mapping[str, Any]] | None) -> frozenset[str] | None:
    """Return the nodes of a cluster that are running, by the API's list of them."""
    return None if nodes is None else frozenset(one["name"] for one in nodes if one.get("running"))


def node_findings(nodes: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield that nodes are not running: for where the queues themselves are not known."""
    everyone = sorted(one["name"] for one in nodes)
    running = running_nodes(nodes) or frozenset()
    down = [one for one in everyone if one not in running]
    if not down:
        return
    text = f"Of the nodes {', '.join(everyone)} these are down: {', '.join(down)}"
    if 2 * len(running) <= len(everyone):
        yield Finding("minority", down[0], f"{text}: a quorum queue with a member on each has no majority.")
    else:
        yield Finding("degraded", down[0], f"{text}.")


def leaders(held: Mapping[str, Membership]) -> dict[str, int]:
    """Return how many of the queues each node leads."""
    return dict(Counter(one.leader for one in held.values() if one.leader is not None))


def findings_of(
    topology: Topology, queues: Iterable[Mapping[str, Any]], bindings: Iterable[Mapping[str, Any]]
) -> list[Finding]:
    """Return what is wrong, by the API's lists of the queues and bindings of one virtual host."""
    listed = {queue["name"]: queue for queue in queues}
    found = list(unbound(topology, bindings))
    for queue in topology.queues:
        if (told := listed.get(queue.name)) is not None:
            found += policy_findings(queue.name, queue.arguments, told)
            found += stuck_findings(queue.name, told)
    return found


def unbound(topology: Topology, bindings: Iterable[Mapping[str, Any]]) -> Iterator[Finding]:
    """Yield the bindings that are missing."""
    there = {
        (one["source"], one["destination"], one["routing_key"])
        for one in bindings
        if one.get("destination_type") == "queue"
    }
    for binding in topology.bindings:
        if (binding.source, binding.queue, binding.routing_key) not in there:
            key = f" with routing key {binding.routing_key!r}" if binding.routing_key else ""
            yield Finding(
                "unbound", binding.queue, f"The queue {binding.queue!r} is not bound to {binding.source!r}{key}."
            )


def policy_findings(name: str, arguments: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[Finding]:
    """
    Yield what a policy says otherwise than the queue's arguments.

    RabbitMQ takes the policy's word for some keys and the smaller value for others
    (https://www.rabbitmq.com/docs/policies#precedence).
    """
    effective = told.get("effective_policy_definition") or {}
    by = " and ".join(f"{told[key]!r}" for key in ("policy", "operator_policy") if told.get(key))
    for key in OVERRIDING:
        wanted = arguments.get(f"x-{key}")
        if key in effective and effective[key] != wanted:
            ours = "says nothing of it" if wanted is None else f"says {wanted!r}"
            yield Finding(
                "policy",
                name,
                f"The policy {by} sets {key} = {effective[key]!r} for queue {name!r}, whose declaration {ours}: "
                f"exclude the queue from the policy.",
            )


def stuck_findings(name: str, told: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield that a queue cannot get rid of what it dead-letters."""
    count = told.get("messages_dlx") or 0
    if count > 0:
        yield Finding(
            "stuck",
            name,
            f"The queue {name!r} holds {count} messages that it could not hand on to its dead-letter exchange: "
            f"no queue takes them there, or it is full.",
        )
