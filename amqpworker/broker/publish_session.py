"""What the lanes of a publisher share: the connection, and what is known of the broker; the purposes of lanes."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amqpworker.broker.address import places
from amqpworker.broker.connection import Connection
from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.broker.declarer import Declarer
from amqpworker.broker.publish_errors import not_confirmed, not_connected, not_written
from amqpworker.errors import AmqpWorkerError
from amqpworker.settings import Settings

if TYPE_CHECKING:
    from amqpworker.broker.keeper import ConnectionKeeper
    from amqpworker.client.calls import Calls

DEFAULT_FRAME_MAX = 131_072


@dataclass(frozen=True, slots=True)
class Purpose:
    """
    The purpose of a lane.

    With `resend` a publication whose confirm was lost is published again; with `awaits_confirm_forever` a confirm is awaited
    as long as the channel is open; with `replies` the channel consumes the replies to what is published on it. With
    `expects_return` there is no queue for what is published.
    """

    name: str
    resend: bool = False
    awaits_confirm_forever: bool = False
    replies: bool = False
    expects_return: bool = False


SENDS = Purpose("sends", resend=True)
CALLS = Purpose("calls", replies=True)
COPIES = Purpose("copies", awaits_confirm_forever=True)
REPLIES = Purpose("replies")
CHECKS = Purpose("checks", expects_return=True)


class Session:
    """The present connection. Used in its thread or event loop, except for what other threads read to marshal frames."""

    def __init__(self, keeper: ConnectionKeeper[Any], settings: Settings, calls: Calls) -> None:
        self.keeper = keeper
        self.settings = settings
        self.calls = calls
        self.connection: Connection | None = None
        self.declarer: Declarer | None = None
        self.problem: ConnectionProblem | None = None
        self.frame_max = DEFAULT_FRAME_MAX
        # The largest body that the broker accepts: known once it has refused a larger one.
        self.max_body = sys.maxsize
        self.serials = itertools.count(1)

    def on_opened(self, connection: Connection) -> None:
        """Use a connection that is open."""
        self.connection = connection
        self.problem = None
        self.frame_max = connection.frame_max or DEFAULT_FRAME_MAX
        self.declarer = Declarer(connection, self.keeper)

    def on_lost(self, problem: ConnectionProblem) -> None:
        """Note that the connection was lost or could not be made."""
        self.connection = self.declarer = None
        self.problem = problem

    def not_sent(self, timeout: float) -> AmqpWorkerError:
        """Return why a publication could not be written within `timeout` seconds."""
        if self.connection is None:
            return not_connected(self.problem, places(self.keeper.addresses), timeout)
        return not_written(self.connection.is_blocked, timeout)

    def not_confirmed(self) -> AmqpWorkerError:
        """Return why no confirm arrived in time."""
        return not_confirmed(self.connection is not None and self.connection.is_blocked)
