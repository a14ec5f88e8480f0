"""A private RabbitMQ node for development, tests and the demo."""

from __future__ import annotations

from amqpworker.testing.node import Node, NodeStatus

__all__ = ["Node", "NodeStatus"]
