"""Nodes as our tests need them: with all of the HTTP API, more plugins, or as members of one cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from amqpworker import testing
from amqpworker.broker.management import Management
from amqpworker.testing.configuration import PLUGINS, Record


class Node(testing.Node):
    """A private node with `plugins` beside the usual ones."""

    def __init__(self, folder: Path | str, *, plugins: Sequence[str] = (), **options: Any) -> None:
        super().__init__(folder, **options)
        self._plugins = (*PLUGINS, *plugins)

    @property
    def management(self) -> NodeApi:
        """Return the HTTP API of the node."""
        return NodeApi(self.management_url)

    @contextmanager
    def alarm(self) -> Iterator[None]:
        """Raise a memory alarm for the time of a block: RabbitMQ reads nothing from connections that publish."""
        self.rabbitmqctl("set_vm_memory_high_watermark", "0")
        try:
            yield
        finally:
            self.rabbitmqctl("set_vm_memory_high_watermark", "0.4")

    def save_queues(self) -> None:
        """
        Have the node write down which quorum queues it has, as it does by itself within a few seconds.

        A queue that it has not written down when it is killed has lost its messages, and has no leader any more.
        """
        self.rabbitmqctl("eval", "[ok = dets:sync(Table) || Table <- dets:all()].")


class Member(Node):
    """
    A node that shares the cookie and the name server of another, which was started before, and can join its cluster.

    `stop` and `discard` of the other one end the name server too, `kill` does not.
    """

    def __init__(self, folder: Path | str, beside: Node, **options: Any) -> None:
        super().__init__(folder, **options)
        self._beside = beside

    def join(self) -> None:
        """Join the other node's cluster; this node loses its data."""
        for command in (["stop_app"], ["join_cluster", self._beside.name], ["start_app"]):
            self.rabbitmqctl(*command, timeout=60.0)

    def _launch(self, record: Record, scripts: Path) -> None:
        record.ports = replace(record.ports, epmd=self._beside.ports.epmd)
        super()._launch(record, scripts)

    def _start_epmd(self, *_: Any) -> None:
        cookie = self.folder / "home" / ".erlang.cookie"
        cookie.unlink(missing_ok=True)
        cookie.touch(mode=0o600)
        cookie.write_bytes((self._beside.folder / "home" / ".erlang.cookie").read_bytes())
        cookie.chmod(0o400)


class NodeApi(Management):
    """
    The HTTP API of one node; every method raises what `Management` raises.

    Figures that the broker gathers every few seconds (message counts, connections) are as old as that.
    """

    def overview(self) -> dict[str, Any]:
        """Return the node's name, version and listeners, among much else."""
        result: dict[str, Any] = self.request("GET", "overview", timeout=5.0)
        return result

    def delete_vhost(self, name: str) -> None:
        """
        Delete a virtual host with all that is in it; its connections are closed.

        Never soon after a start of the node: a queue that is deleted while its dead-letter worker starts ends the
        supervisor of these workers (3.10.8), and the node answers 541 to each declaration of a task queue until it restarts.
        """
        self.request("DELETE", "vhosts", name, timeout=60.0)

    def create_user(self, name: str, password: str, tags: str = "") -> None:
        """Create a user, or change its password and tags."""
        self.request("PUT", "users", name, body={"password": password, "tags": tags})

    def delete_user(self, name: str) -> None:
        """Delete a user."""
        self.request("DELETE", "users", name)

    def set_permissions(
        self, vhost: str, user: str, configure: str = ".*", write: str = ".*", read: str = ".*"
    ) -> None:
        """Set what a user may do in a virtual host: three regular expressions over the names of things."""
        body = {"configure": configure, "write": write, "read": read}
        self.request("PUT", "permissions", vhost, user, body=body)

    def set_policy(self, vhost: str, name: str, pattern: str, definition: Mapping[str, Any]) -> None:
        """Set a policy for the queues and exchanges whose name matches the pattern."""
        body = {"pattern": pattern, "definition": dict(definition), "apply-to": "all"}
        self.request("PUT", "policies", vhost, name, body=body)

    def queue(self, vhost: str, name: str) -> dict[str, Any]:
        """Return one queue."""
        result: dict[str, Any] = self.request("GET", "queues", vhost, name)
        return result

    def exchanges(self, vhost: str) -> list[dict[str, Any]]:
        """Return all exchanges of a virtual host, the broker's own included."""
        return self._list("exchanges", vhost)

    def declare_queue(self, vhost: str, name: str, arguments: Mapping[str, Any] | None = None) -> None:
        """Declare a durable queue."""
        self.request("PUT", "queues", vhost, name, body={"durable": True, "arguments": dict(arguments or {})})

    def delete_queue(self, vhost: str, name: str) -> None:
        """Delete a queue with its messages."""
        self.request("DELETE", "queues", vhost, name)

    def purge_queue(self, vhost: str, name: str) -> None:
        """Drop the messages that are ready in a queue."""
        self.request("DELETE", "queues", vhost, name, "contents")

    def publish(
        self, vhost: str, exchange: str, routing_key: str, body: str, properties: Mapping[str, Any] | None = None
    ) -> bool:
        """Publish like the form of the UI, and return whether a queue received the message."""
        message = {
            "routing_key": routing_key,
            "payload": body,
            "payload_encoding": "string",
            "properties": dict(properties or {}),
        }
        answer = self.request("POST", "exchanges", vhost, exchange or "amq.default", "publish", body=message)
        return bool(answer["routed"])

    def get(self, vhost: str, queue: str, count: int = 1, *, ack: bool = False) -> list[dict[str, Any]]:
        """Get messages like the UI; without `ack` they are requeued."""
        mode = "ack_requeue_false" if ack else "ack_requeue_true"
        body = {"count": count, "ackmode": mode, "encoding": "auto"}
        result: list[dict[str, Any]] = self.request("POST", "queues", vhost, queue, "get", body=body)
        return result

    def connections(self, vhost: str | None = None) -> list[dict[str, Any]]:
        """Return the open connections of a virtual host, or of all; a new one takes a moment to show up."""
        path = ("connections",) if vhost is None else ("vhosts", vhost, "connections")
        return self._list(*path)

    def close_connection(self, name: str) -> None:
        """Close a connection, as an administrator does; its client receives "Closed via management plugin" as the reason."""
        self.request("DELETE", "connections", name)
