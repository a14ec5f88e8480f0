"""What the tables of a publisher still hold, for tests in which no message may be left in any of them."""

from __future__ import annotations

from collections import Counter

from amqpworker import App
from amqpworker.broker.publish_core import PublishCore
from tests.support import wait_until


def publisher_of(app: App) -> PublishCore:
    """Return what publishes the messages of the running event loop."""
    return app._async.carriers.current().publisher


def left_in(publisher: PublishCore) -> Counter[str]:
    """Count what belongs to messages and calls, by table; empty once nothing is left."""
    session, count = publisher.session, publisher._consumer_count
    found = Counter(calls=len(session.calls), counts=len(count.waiting) + len(count._asked))
    if session.declarer is not None:
        found["declarations"] += sum(map(len, session.declarer._callbacks.values()))
    for lane in publisher._lanes:
        quarantine = lane._quarantine
        found["inbox"] += len(lane._inbox)
        found["parked"] += len(lane._parked)
        found["paused"] += len(lane._paused)
        found["quarantine"] += len(quarantine._waiting) + len(quarantine._channels)
        for channel in [*lane._channels(), *quarantine.channels]:
            found["in flight"] += len(channel._in_flight)
            found["bytes in flight"] += channel._bytes_in_flight
    return +found


def waiting_in(publisher: PublishCore) -> int:
    """Count the messages that wait to be written, or for their confirm."""
    left = left_in(publisher)
    return sum(left[table] for table in ("inbox", "parked", "paused", "in flight"))


def wait_until_nothing_is_left(publisher: PublishCore) -> None:
    """Wait until no table of a publisher holds a message or a call any more."""
    try:
        wait_until(lambda: not left_in(publisher), 10)
    except AssertionError:
        raise AssertionError(f"left: {left_in(publisher)}") from None
