"""
What operators do with an app: dead letters, messages that wait, and what is paused.

Decides that all of it needs a broker, which an app that runs inline does not have. Each part is loaded when it is used: most
programs only send.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from amqpworker.errors import ConfigError

if TYPE_CHECKING:
    from amqpworker.broker.address import Address
    from amqpworker.client.dead import DeadLetters
    from amqpworker.client.pending import Pending
    from amqpworker.client.producer import Producer
    from amqpworker.client.queue_control import QueueControl
    from amqpworker.results.store import ResultStore
    from amqpworker.routing.queues import Plan
    from amqpworker.settings import Settings
    from amqpworker.task import RemoteTask, Task


class OperatedApp:
    """The properties of an `App` for operators."""

    url: str
    plan: Plan
    settings: Settings
    tasks: Mapping[str, Task[Any, Any]]
    remotes: Mapping[str, RemoteTask[Any, Any]]
    _addresses: Sequence[Address]
    _no_broker: str
    """Why it has no broker, empty if it has one."""

    @property
    def producer(self) -> Producer:
        """The sending side."""
        raise NotImplementedError

    def store(self) -> ResultStore | None:
        """Return its result store, if it has one."""
        raise NotImplementedError

    @property
    def is_inline(self) -> bool:
        """Whether its tasks run where they are sent, without a broker, as in tests."""
        return bool(self._no_broker)

    @property
    def queues(self) -> QueueControl:
        """Pauses and resumes queues and tasks in all worker processes."""
        from amqpworker.client.pause_writer import PauseWriter
        from amqpworker.client.queue_control import QueueControl

        self._require_broker("queues")
        return QueueControl(self, PauseWriter(self.producer, self.plan, self._addresses, self.settings))

    @property
    def dead(self) -> DeadLetters:
        """The dead letters in the queues of the app: list, replay and drop them."""
        from amqpworker.client.dead import DeadLetters

        self._require_broker("dead")
        return DeadLetters(self.url, self.settings, self.plan, self.producer)

    @property
    def pending(self) -> Pending:
        """The messages that wait until they are due: list, show, cancel and reschedule them."""
        from amqpworker.client.pending import Pending

        self._require_broker("pending")
        return Pending(self)

    def _require_broker(self, name: str) -> None:
        if self._no_broker:
            raise ConfigError(f"app.{name} is about queues of RabbitMQ: {self._no_broker}")
