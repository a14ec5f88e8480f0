"""Log which tasks ran for longer than the ack timeout, so that the broker closed their channel."""

from __future__ import annotations

from collections.abc import Sequence

from amqpworker.ipc.recorder import Recording, key_of
from amqpworker.log.logger import get_logger
from amqpworker.model.message import Delivery

log = get_logger("amqpworker.worker.receiver")

# Lines for one channel.
MAX_NAMED = 20


def with_seconds(
    deliveries: Sequence[Delivery], recording: Recording | None, now: float
) -> list[tuple[Delivery, float]]:
    """Return the recorded ones of these deliveries, each with the seconds that it has run; `now` is since the epoch."""
    started = {} if recording is None else {one.key: one.started for one in recording.running}
    keys = [(one, key_of(one).decode("utf-8", "replace")) for one in deliveries]
    return [(one, max(0.0, now - started[key])) for one, key in keys if key in started]


def _late_tasks(running: Sequence[tuple[Delivery, float]], timeout: float) -> list[tuple[Delivery, float]]:
    """
    Return those that have run for longer than `timeout` seconds, the longest first.

    The longest-running task is always one of them: the broker counts from the delivery on, and its timeout may differ
    from the one that is known.
    """
    longest = sorted(running, key=lambda pair: pair[1], reverse=True)
    return ([pair for pair in longest if pair[1] >= timeout] or longest[:1])[:MAX_NAMED]


def log_late(running: Sequence[tuple[Delivery, float]], timeout: float, reason: str) -> None:
    """Warn of each task that was late; `reason` is why the channel is lost."""
    for delivery, seconds in _late_tasks(running, timeout):
        log.warning(
            "ack_timeout_passed",
            task=delivery.properties.type,
            id=delivery.properties.message_id,
            queue=delivery.queue,
            seconds=round(seconds, 1),
            reason=reason,
            effect="it continues, and its message is redelivered",
        )
