"""What operators see of our connections and subscriptions in the broker's lists."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import amqpworker
from amqpworker import App
from tests.support import Broker, wait_until
from tests.workers import running

PROCESS = f"{socket.gethostname()}:{os.getpid()}"


def nothing() -> None:
    """Do nothing."""


def clients(vhost: Broker, count: int) -> dict[str, dict[str, Any]]:
    """Return what the broker knows of `count` connections, by their names."""

    def named() -> dict[str, dict[str, Any]]:
        told = [one.get("client_properties") or {} for one in vhost.management.connections(vhost.vhost)]
        return {one["connection_name"]: one for one in told if "connection_name" in one}

    return wait_until(lambda: found if len(found := named()) == count else {}, what=f"{count} connections")


def test_connections_are_named_after_the_app_and_the_process(vhost: Broker, make_app: Callable[..., App]) -> None:
    app = make_app(app_id="shop")
    app.task(name="nothing", queue="emails")(nothing)
    with running(app, threads=1):
        found = clients(vhost, 3)
    assert set(found) == {f"shop {part} {PROCESS}" for part in ("consumer", "follower", "publisher")}
    assert {(one["product"], one["version"]) for one in found.values()} == {("amqpworker", amqpworker.__version__)}


def test_without_a_name_of_the_app_a_worker_has_that_of_its_module_and_a_service_that_of_its_program(
    vhost: Broker, make_app: Callable[..., App]
) -> None:
    app = make_app()
    app.task(name="nothing", queue="emails")(nothing).send()
    (service,) = clients(vhost, 1)
    assert service == f"pytest publisher {PROCESS}"
    with running(make_app_of(app, make_app), threads=1):
        parts = ("consumer", "follower", "publisher")
        assert set(clients(vhost, 4)) == {service, *(f"tests:app {part} {PROCESS}" for part in parts)}


def make_app_of(app: App, make_app: Callable[..., App]) -> App:
    """Make another app with the same task."""
    other = make_app(app.url)
    other.task(name="nothing", queue="emails")(nothing)
    return other


def test_consumers_are_named_after_the_process_and_the_queue_and_stay_in_the_list_while_idle(
    vhost: Broker, make_app: Callable[..., App]
) -> None:
    app = make_app()
    app.task(name="nothing", queue="emails")(nothing)

    def tags() -> list[str]:
        return [one["consumer_tag"] for one in vhost.management.queue(vhost.vhost, "emails")["consumer_details"]]

    with running(app, threads=1) as worker:
        wait_until(tags, what="the consumer is in the list")
        seen = [tags() for _ in range(100)]
        assert seen == [[f"{PROCESS} emails"]] * 100
        vhost.close_connections()
        wait_until(lambda: worker.process.consumer.consuming and tags() not in ([], [f"{PROCESS} emails"]), 20)
        assert tags() == [f"{PROCESS} emails 2"]
