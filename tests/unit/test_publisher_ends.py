"""The ends of a publisher: what waits is seen at every moment, and what was closed stays closed."""

from __future__ import annotations

import time
from types import SimpleNamespace

from amqpworker.broker.address import addresses
from amqpworker.broker.channel import prepare
from amqpworker.broker.outgoing import Outgoing
from amqpworker.broker.publisher import Publisher
from amqpworker.broker.reasons import ConnectionProblem
from amqpworker.errors import NotConnected
from amqpworker.message import Properties, Publication
from amqpworker.settings import Settings
from amqpworker.topology import Topology


def new_publisher() -> Publisher:
    return Publisher(addresses("amqp://localhost:1"), Settings(), lambda _: Topology(), lambda *_: False)


def test_what_is_held_for_its_queue_is_under_way_while_the_connection_is_lost() -> None:
    """It waits for the next connection: whoever closes meanwhile has to wait for it."""
    publisher = new_publisher()
    held = Outgoing(prepare(Publication("e", "k", Properties(), b""), 4096), time.monotonic() + 10, ("queue k",))
    publisher._held.add(held)
    idle: list[bool] = []
    publisher.on_channel_lost = lambda: idle.append(publisher.idle())
    publisher.lost(ConnectionProblem("gone.", "away", "localhost:1"))
    assert idle == [False]
    assert not publisher.idle()
    assert not held.done


def test_a_publisher_that_was_closed_before_its_first_message_never_connects() -> None:
    publisher = new_publisher()
    assert publisher.close(1)
    publisher.start()
    assert not publisher._io.alive


def test_what_is_published_after_the_last_look_into_the_inbox_fails_at_once() -> None:
    publisher = new_publisher()
    publisher._started = publisher._io.ended = True
    assert publisher.broken
    outgoing = publisher.publish(Publication("e", "k", Properties(), b""))
    assert isinstance(outgoing.error, NotConnected)


def test_a_message_that_moves_on_is_under_way_at_every_moment() -> None:
    """`close` may look at any time."""
    publisher = new_publisher()
    publisher._started = True
    idle: list[bool] = []

    class Watching(Outgoing):
        """Looks while it is between the inbox and the wire."""

        __slots__ = ()

        def __getattribute__(self, name: str) -> object:
            if name == "size":
                idle.append(publisher.idle())
            return super().__getattribute__(name)

    channel = SimpleNamespace(publish=lambda _: None)
    publisher._channel = channel  # type: ignore[assignment]
    publisher._connection = SimpleNamespace(blocked_now=False)  # type: ignore[assignment]
    publisher._inbox.append(Watching(prepare(Publication("e", "k", Properties(), b""), 4096), time.monotonic() + 10))
    publisher._in_flight = NeverSeen()
    publisher.woken()
    assert idle == [False]


class NeverSeen(dict[int, Outgoing]):
    """What is put in is not there yet for who looks at the same moment."""

    def __len__(self) -> int:
        return 0
