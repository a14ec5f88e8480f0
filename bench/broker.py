"""The node that is measured on: a private one, or any that is named; a fresh virtual host for each measure."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from bench.places import cpu_seconds

IDLE = 0.10
IDLE_PATIENCE = 15.0
BLOCK = 512
"""What the kernel counts a file's size on the disk in, in bytes."""


@dataclass(frozen=True)
class Broker:
    """A running node: its AMQP URL, its management URL (with the login in it) and, where it is ours, process and folder."""

    url: str
    management: str
    pid: int | None = None
    folder: Path | None = None

    @contextmanager
    def vhost(self) -> Iterator[str]:
        """Make a virtual host, give the URL of it, and delete it with all that is in it."""
        name = f"bench-{uuid.uuid4().hex[:8]}"
        self._http("PUT", f"vhosts/{name}", {"default_queue_type": "classic"})
        try:
            yield urlunsplit(urlsplit(self.url)._replace(path=f"/{quote(name)}"))
        finally:
            self._http("DELETE", f"vhosts/{name}")

    def versions(self) -> str:
        """Return what it runs."""
        overview = self._http("GET", "overview")
        return f"RabbitMQ {overview['rabbitmq_version']} on Erlang {overview['erlang_version']}"

    def wait_until_idle(self) -> None:
        """Wait until the node has written what it was given: under a tenth of a core, or some seconds."""
        if self.pid is None:
            time.sleep(1)
            return
        deadline = time.monotonic() + IDLE_PATIENCE
        while time.monotonic() < deadline:
            before, start = cpu_seconds(self.pid), time.monotonic()
            time.sleep(0.25)
            if (cpu_seconds(self.pid) - before) / (time.monotonic() - start) < IDLE:
                return

    def disk_bytes(self) -> int | None:
        """Return what the node's folder takes on the disk, `None` if it is not known where that is."""
        if self.folder is None:
            return None
        total = 0
        for path in self.folder.rglob("*"):
            with suppress(OSError):  # the node deletes files meanwhile
                total += path.lstat().st_blocks * BLOCK
        return total

    def _http(self, verb: str, path: str, body: dict[str, Any] | None = None) -> Any:
        parts = urlsplit(self.management)
        login = base64.b64encode(f"{parts.username or 'guest'}:{parts.password or 'guest'}".encode()).decode()
        request = urllib.request.Request(
            f"http://{parts.hostname}:{parts.port}/api/{path}",
            method=verb,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"Basic {login}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            data = answer.read()
        return json.loads(data) if data else None


@contextmanager
def private_node() -> Iterator[Broker]:
    """Start a node of our own in a temporary folder, and stop it."""
    from amqpworker.testing.node import Node

    folder = Path(tempfile.mkdtemp(prefix="amqpworker-bench-"))
    node = Node(folder, tied=True)
    node.start()
    try:
        yield Broker(node.url(), node.management_url, node.pid, folder)
    finally:
        node.stop()
        shutil.rmtree(folder, ignore_errors=True)
