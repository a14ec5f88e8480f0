"""
What the broker's HTTP API tells that AMQP does not: bindings, policies that override arguments, letters that are stuck.

Decides what of it is wrong for the topology that we need. Asking the API is `topology`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from amqpworker.topology import Topology

__all__ = ["Finding", "findings_of", "gathered", "policy_findings", "stuck_findings", "unbound"]

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


@dataclass(frozen=True, slots=True)
class Finding:
    """
    Something that is not as it should be; `kind` is one word for programs, `text` a sentence for people.

    `why` is the same for whatever could not be looked at for the same reason.
    """

    kind: str
    name: str
    text: str
    why: str = ""


def gathered(findings: Iterable[Finding], looked_at: int) -> Iterator[tuple[str, str]]:
    """Yield kind and text of each line to show; what could not be looked at for one reason is one line."""
    reasons: dict[str, list[Finding]] = {}
    for one in findings:
        if one.why:
            reasons.setdefault(one.why, []).append(one)
        else:
            yield one.kind, one.text
    for why, of_it in reasons.items():
        parts = "exchanges and queues" if looked_at > 1 else "exchange or queue"
        yield of_it[0].kind, f"{len(of_it)} of {looked_at} {parts} could not be compared: {why}."


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
