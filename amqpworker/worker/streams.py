"""
The service that follows the streams of a worker process, and what decides by them before a task runs.

Decides that the process consumes nothing before it has read them, as far as they can be read, and that it does not start if the
broker cannot have them although its app declares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from amqpworker.app import App
from amqpworker.broker.address import addresses
from amqpworker.broker.consumer_channel import Subscription
from amqpworker.broker.stream_follower import StreamFollower
from amqpworker.errors import ConfigError
from amqpworker.ipc.pipes import Reporter
from amqpworker.worker.executor import Gate
from amqpworker.worker.pauses import Pauses
from amqpworker.worker.service import Service


class Streams(Service):
    """
    Follows the streams, over one connection that the broker lists as that of `owner`.

    `subscriptions` are those of the process. `pause` is called with all paused queues once these are known, and whenever they change.
    """

    def __init__(
        self,
        app: App,
        owner: str,
        reporter: Reporter,
        subscriptions: Sequence[Subscription],
        pause: Callable[[frozenset[str]], None],
    ) -> None:
        queues = frozenset(one.queue for one in subscriptions)
        self.pauses = Pauses(queues, app.tasks, pause, reporter)
        # A new stream, and a new gate, is added here.
        streams = [self.pauses.stream(app.plan)]
        self.gates: Sequence[Gate] = [self.pauses.gate]
        self.follower = StreamFollower(
            addresses(app.url), app.settings, streams, owner=owner, on_ready=self._on_follower_ready
        )

    @property
    def problem(self) -> ConfigError | None:
        """Why the broker cannot have streams."""
        return self.follower.problem

    def _on_follower_ready(self) -> None:
        if self.problem is None:
            self.pauses.on_ready()

    def start(self) -> None:
        """Connect."""
        self.follower.start()

    def beat(self, now: float) -> None:  # noqa: ARG002
        """Report what is paused."""
        self.pauses.beat()

    def stop(self, grace: float) -> None:
        """Close the connection."""
        self.follower.stop(grace)
