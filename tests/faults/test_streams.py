"""Brokers that have no streams."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amqpworker.testing import node as node_module
from amqpworker.testing.configuration import environment
from tests.integration.test_stream_follower import following
from tests.nodes import Node

FLAGS = "quorum_queue,implicit_default_bindings,maintenance_mode_status,user_limits,virtual_host_metadata"


@pytest.fixture
def node_without_streams(make_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node whose feature flag stream_queue is off, as after an upgrade from 3.8."""
    as_it_is = environment

    def without_streams(folder: Path, record: Any) -> dict[str, str]:
        return {**as_it_is(folder, record), "RABBITMQ_FEATURE_FLAGS": FLAGS}

    monkeypatch.setattr(node_module, "environment", without_streams)
    return make_node().start()


def test_where_streams_are_disabled_the_error_names_the_command(node_without_streams: Node) -> None:
    with following(node_without_streams.url()) as read:
        assert read.ready.wait(10)
        assert "rabbitmqctl enable_feature_flag stream_queue" in str(read.follower.problem)
