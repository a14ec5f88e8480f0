"""
What a worker process reads of streams: a service around the one `StreamFollower` of the process.

Decides when the process may consume: once everything was read that was in the streams, or they cannot be read now, so that no
task starts that was cancelled before. Who reads what is not decided here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from amqpworker.broker.address import Address
from amqpworker.broker.stream_follower import StreamFollower
from amqpworker.broker.stream_reader import FollowedStream
from amqpworker.settings import Settings
from amqpworker.worker.service import Service

CLOSE_TIMEOUT = 2.0


class StreamService(Service):
    """Follows streams from the start of the process to its end; `wake` is called once they are read."""

    def __init__(
        self,
        addresses: Sequence[Address],
        settings: Settings,
        streams: Sequence[FollowedStream],
        owner: str,
        wake: Callable[[], None],
    ) -> None:
        self._ready = threading.Event()
        self._wake = wake
        self.follower = StreamFollower(addresses, settings, streams, owner=owner, on_ready=self._on_ready)

    @property
    def is_ready(self) -> bool:
        """Whether the process may consume."""
        return self._ready.is_set()

    def _on_ready(self) -> None:
        self._ready.set()
        self._wake()

    def start(self) -> None:
        """Connect, and read what is in the streams."""
        self.follower.start()

    def stop(self, grace: float) -> None:
        """Close the connection."""
        self.follower.stop(min(grace, CLOSE_TIMEOUT))
