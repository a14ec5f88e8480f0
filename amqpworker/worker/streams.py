"""
The service that follows the streams of a worker process over one connection.

Decides that the process does not start if the broker cannot have streams although its app declares them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from amqpworker.app import App
from amqpworker.broker.address import addresses
from amqpworker.broker.stream_follower import StreamFollower
from amqpworker.broker.stream_reader import FollowedStream
from amqpworker.errors import ConfigError
from amqpworker.worker.service import Service


class Streams(Service):
    """
    Follows streams for what decides by them.

    `on_ready` is called once each was read to its end, or cannot be read for now: not if the broker cannot have streams at all.
    `is_waited_for` returns whether anything could start if it were called.
    """

    def __init__(
        self,
        app: App,
        owner: str,
        streams: Sequence[FollowedStream],
        on_ready: Callable[[], None],
        is_waited_for: Callable[[], bool],
    ) -> None:
        self._on_ready = on_ready
        self.follower = StreamFollower(
            addresses(app.url),
            app.settings,
            streams,
            owner=owner,
            on_ready=self._on_follower_ready,
            is_waited_for=is_waited_for,
        )

    @property
    def problem(self) -> ConfigError | None:
        """Why the broker cannot have streams: the process cannot start."""
        return self.follower.problem

    def _on_follower_ready(self) -> None:
        if self.problem is None:
            self._on_ready()

    def start(self) -> None:
        """Connect."""
        self.follower.start()

    def stop(self, grace: float) -> None:
        """Close the connection."""
        self.follower.stop(grace)
