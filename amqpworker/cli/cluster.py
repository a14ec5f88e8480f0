"""
What the broker's HTTP API reports of a cluster: requested all at once, with one time limit.

On RabbitMQ 3.10 the list of queues waits for each node, a frozen one included; the list of nodes does not.
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

TOTAL_TIMEOUT = 8.0

Listing: TypeAlias = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The API's lists; None is one that did not arrive in time, or that this login may not see."""

    queues: Listing | None
    bindings: Listing | None
    nodes: Listing | None
    reason: str

    def members(self, whole: Topology) -> dict[str, Membership]:
        """Return the members of each queue of a topology."""
        return memberships(whole, self.queues or (), running_nodes(self.nodes))

    def findings(self, whole: Topology) -> list[Finding]:
        """Return what is wrong."""
        if self.queues is None or self.bindings is None:
            missing = Finding(
                "unknown", "management", f"Bindings, policies and members were not compared: {self.reason}."
            )
            return [*node_findings(self.nodes or ()), missing]
        return [*findings_of(whole, self.queues, self.bindings), *member_findings(self.members(whole))]


class ClusterRequests:
    """Requests to the API whose responses are awaited."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._deadline = time.monotonic() + TOTAL_TIMEOUT
        self._threads: list[threading.Thread] = []
        self._responses: dict[str, Listing | ConfigError] = {}

    @classmethod
    def start(cls, api: Management, app: App) -> Self:
        """Request all lists."""
        from amqpworker.broker.address import addresses

        vhost = addresses(app.url)[0].virtual_host
        requests = cls(api.url)
        requests._request("queues", lambda: api.queues(vhost))
        requests._request("bindings", lambda: api.bindings(vhost))
        requests._request("nodes", api.nodes)
        return requests

    def _request(self, name: str, get: Callable[[], Listing]) -> None:
        def run() -> None:
            try:
                self._responses[name] = get()
            except ConfigError as error:
                self._responses[name] = error

        # A daemon: a response that does not arrive must not keep the program from ending.
        thread = threading.Thread(target=run, name=f"request {name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def result(self) -> ClusterView:
        """Return the lists that arrived in time; raises ConfigError if the API refuses, or there is none at this address."""
        for thread in self._threads:
            thread.join(max(0.0, self._deadline - time.monotonic()))
        found = {name: self._responses.get(name) for name in ("queues", "bindings", "nodes")}
        for name in ("queues", "bindings"):
            if isinstance(error := found[name], ConfigError):
                raise error
        lists = {name: None if isinstance(response, ConfigError) else response for name, response in found.items()}
        reason = f"the management API at {self._url} did not respond within {TOTAL_TIMEOUT:g} s"
        return ClusterView(lists["queues"], lists["bindings"], lists["nodes"], reason)
