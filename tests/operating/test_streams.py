"""Brokers that have no streams."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amqpworker import App, ConfigError, Settings
from amqpworker.broker.admin import Admin
from amqpworker.ipc.exit_status import MISCONFIGURED
from amqpworker.routing.topology import base, work_queue
from amqpworker.testing import node as node_module
from amqpworker.testing.configuration import environment
from tests.nodes import Node
from tests.operating.test_stream_follower import CONTROL, following
from tests.support import wait_until
from tests.workers import running

FLAGS = "quorum_queue,implicit_default_bindings,maintenance_mode_status,user_limits,virtual_host_metadata"


@pytest.fixture
def node_without_streams(make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node whose feature flag stream_queue is off, as after an upgrade from 3.8."""
    as_it_is = environment

    def without_streams(folder: Path, record: Any) -> dict[str, str]:
        return {**as_it_is(folder, record), "RABBITMQ_FEATURE_FLAGS": FLAGS}

    monkeypatch.setattr(node_module, "environment", without_streams)
    return make_node().start()


def test_where_streams_are_disabled_the_error_names_the_command(
    node_without_streams: Node, caplog: pytest.LogCaptureFixture
) -> None:
    url = node_without_streams.url()
    with following(url) as read:
        assert read.ready.wait(10)
        assert "rabbitmqctl enable_feature_flag stream_queue" in str(read.follower.problem)
        assert not read.follower.caught_up(CONTROL, 5)
    refused, runs = App(url), App(url, settings=Settings(declare=False))
    for app in (refused, runs):
        app.task(name="note", queue="work")(lambda: None)
    with running(refused, wait=False, code=MISCONFIGURED) as worker:
        wait_until(lambda: worker.code is not None, what="it ends by itself")
    assert "rabbitmqctl enable_feature_flag stream_queue" in caplog.text
    with pytest.raises(ConfigError, match="rabbitmqctl enable_feature_flag stream_queue"):
        refused.queues.pause("work")
    assert node_without_streams.management.queues("/")[0]["name"].startswith("amqpworker."), "all else is declared"
    with Admin(url, refused.settings) as admin:
        admin.declare(work_queue("amqpworker", "work") + base("amqpworker"), lambda _: None)
    with running(runs) as worker:
        assert worker.process.consumer.consuming
    with (
        Admin(url, refused.settings) as admin,
        pytest.raises(ConfigError, match="rabbitmqctl enable_feature_flag stream_queue"),
    ):
        admin.declare(refused.plan.whole(), lambda _: None)
