"""The service that follows the streams of a worker process over one connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from amqpworker.app import App
from amqpworker.broker.address import addresses
from amqpworker.broker.stream_follower import StreamFollower
from amqpworker.broker.stream_reader import FollowedStream
from amqpworker.worker.service import Service


class Streams(Service):
    """
    Follows streams for what decides by them.

    `on_ready` is called once each was read to its end, or cannot be read for now.
    """

    def __init__(self, app: App, owner: str, streams: Sequence[FollowedStream], on_ready: Callable[[], None]) -> None:
        self.follower = StreamFollower(addresses(app.url), app.settings, streams, owner=owner, on_ready=on_ready)

    def start(self) -> None:
        """Connect."""
        self.follower.start()

    def stop(self, grace: float) -> None:
        """Close the connection."""
        self.follower.stop(grace)
