"""For development and tests: a private RabbitMQ node, and the tests that each result store must pass."""

from __future__ import annotations

from amqpworker.testing.node import Node, NodeStatus
from amqpworker.testing.result_store_contract import ResultStoreContract

__all__ = ["Node", "NodeStatus", "ResultStoreContract"]
