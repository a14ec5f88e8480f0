"""
What the broker's HTTP API tells of a cluster: asked all at once, and waited for only so long.

On RabbitMQ 3.10 the list of queues waits for each node, one that is frozen included; the list of nodes does not. Decides
what is left out. What of it is wrong is decided by `findings`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from amqpworker.cli.findings import (
    Finding,
    Membership,
    findings_of,
    member_findings,
    memberships,
    node_findings,
    running_nodes,
)
from amqpworker.errors import ConfigError
from amqpworker.routing.topology import Topology

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.broker.management import Management

__all__ = ["ClusterView", "Seen"]

WITHIN = 8.0

Listing: TypeAlias = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Seen:
    """The API's lists; None is one that did not come in time, or that this login may not see."""

    queues: Listing | None
    bindings: Listing | None
    nodes: Listing | None
    why: str

    def held(self, whole: Topology) -> dict[str, Membership]:
        """Return who holds each queue of a topology."""
        return memberships(whole, self.queues or (), running_nodes(self.nodes))

    def findings(self, whole: Topology) -> list[Finding]:
        """Return what is wrong."""
        if self.queues is None or self.bindings is None:
            missing = Finding("unknown", "management", f"Bindings, policies and members were not compared: {self.why}.")
            return [*node_findings(self.nodes or ()), missing]
        return [*findings_of(whole, self.queues, self.bindings), *member_findings(self.held(whole))]


class ClusterView:
    """Questions to the API that are under way."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._until = time.monotonic() + WITHIN
        self._threads: list[threading.Thread] = []
        self._answers: dict[str, Listing | ConfigError] = {}

    @classmethod
    def begin(cls, api: Management, app: App) -> Self:
        """Ask for all of it."""
        from amqpworker.broker.address import addresses

        vhost = addresses(app.url)[0].virtual_host
        view = cls(api.url)
        view._ask("queues", lambda: api.queues(vhost))
        view._ask("bindings", lambda: api.bindings(vhost))
        view._ask("nodes", api.nodes)
        return view

    def _ask(self, name: str, question: Callable[[], Listing]) -> None:
        def ask() -> None:
            try:
                self._answers[name] = question()
            except ConfigError as error:
                self._answers[name] = error

        # A daemon: an answer that does not come does not keep the program from ending.
        thread = threading.Thread(target=ask, name=f"ask for {name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def seen(self) -> Seen:
        """
        Return what came in time.

        Raises:
            ConfigError: the API answers, and refuses to tell; or it is not there.
        """
        for thread in self._threads:
            thread.join(max(0.0, self._until - time.monotonic()))
        found = {name: self._answers.get(name) for name in ("queues", "bindings", "nodes")}
        for name in ("queues", "bindings"):
            if isinstance(error := found[name], ConfigError):
                raise error
        lists = {name: None if isinstance(one, ConfigError) else one for name, one in found.items()}
        why = f"the management API at {self._url} did not answer within {WITHIN:g} s"
        return Seen(lists["queues"], lists["bindings"], lists["nodes"], why)
