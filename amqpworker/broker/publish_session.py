"""
What the lanes of a publisher are for, and what they share: its connection, and what is known of the broker.

Decides what is said of a publication that could not be written, or was not confirmed, in time.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass

from amqpworker.broker.address import places
from amqpworker.broker.connection_errors import ConnectionProblem
from amqpworker.broker.declarer import Declarer
from amqpworker.broker.io_thread import IOThread
from amqpworker.broker.pika_connection import PikaConnection
from amqpworker.broker.publish_errors import not_confirmed, not_connected, not_written
from amqpworker.errors import AmqpWorkerError
from amqpworker.routing.queues import Requirement
from amqpworker.settings import Settings

__all__ = ["CALLS", "COPIES", "REPLIES", "SENDS", "OnReply", "Purpose", "Session"]

OnReply = Callable[[str, bytes], bool]

DEFAULT_FRAME_MAX = 131_072


@dataclass(frozen=True, slots=True)
class Purpose:
    """
    What a lane is for.

    With `resend` what lost its confirm is published again; with `patient` a confirm is waited for as long as the channel
    lives; with `replies` the channel consumes the replies to what is published on it.
    """

    name: str
    resend: bool = False
    patient: bool = False
    replies: bool = False


SENDS = Purpose("sends", resend=True)
CALLS = Purpose("calls", replies=True)
COPIES = Purpose("copies", patient=True)
REPLIES = Purpose("replies")


class Session:
    """One connection after the other; all of it belongs to the I/O thread, what is read to make frames aside."""

    def __init__(self, io: IOThread, settings: Settings, on_reply: OnReply) -> None:
        self.io = io
        self.settings = settings
        self.on_reply = on_reply
        self.on_channel_lost: Callable[[int], None] = lambda _serial: None
        """Called with the serial number of a channel when no reply to what was published on it can come any more."""
        self.replies_expected: Callable[[int], bool] = lambda _serial: False
        """Asked whether a reply to something that was published on the channel with this serial number is waited for."""
        self.connection: PikaConnection | None = None
        self.declarer: Declarer | None = None
        self.problem: ConnectionProblem | None = None
        self.frame_max = DEFAULT_FRAME_MAX
        # What the broker takes is known once it has refused something larger; it stays known.
        self.max_body = sys.maxsize
        self.serials = itertools.count(1)

    def begin(self, connection: PikaConnection) -> None:
        """Begin with a connection that is open."""
        self.connection = connection
        self.problem = None
        self.frame_max = connection.params.frame_max or DEFAULT_FRAME_MAX
        self.declarer = Declarer(connection, self.io.liveness)

    def end(self, problem: ConnectionProblem) -> None:
        """End: the connection is gone, or could not be made."""
        self.connection = self.declarer = None
        self.problem = problem

    def is_bounded(self, requirements: tuple[Requirement, ...]) -> bool:
        """Return whether a required queue has a bound that this app knows."""
        queues = (queue for one in requirements for queue in one.make_topology().queues)
        return any("x-max-length" in queue.arguments for queue in queues)

    def not_sent(self) -> AmqpWorkerError:
        """Return why nothing could be written until now."""
        if self.connection is None:
            return not_connected(self.problem, places(self.io.addresses))
        return not_written(self.connection.blocked_now)

    def not_confirmed(self) -> AmqpWorkerError:
        """Return why no confirm came in time."""
        return not_confirmed(self.connection is not None and self.connection.blocked_now)
