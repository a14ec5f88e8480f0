"""
Which publication a message becomes: sent, called, retried, republished, dead-lettered or replied to.

Decides the exchange, the routing key and each property; `broker` publishes. What is published again is built from an
allow-list (docs/wire.md): RabbitMQ 3.x stops dead-lettering a message that is published with its `x-death`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from amqpworker.errors import InvalidArguments
from amqpworker.model import headers as h
from amqpworker.model.headers import now_text, time_text
from amqpworker.model.message import (
    JSON,
    PERSISTENT,
    REPLY_TO,
    Delivery,
    Headers,
    Message,
    Properties,
    Publication,
    new_id,
)
from amqpworker.policies.durations import seconds_until
from amqpworker.policies.send_options import LATE_BEFORE_DUE
from amqpworker.routing import delay as ladder
from amqpworker.routing.topology import work_queue_of
from amqpworker.text import truncated

if TYPE_CHECKING:
    from amqpworker.model.dead_letter import DeadLetter
    from amqpworker.model.outcome import Dead
    from amqpworker.routing.topology import Names

MAX_TRACEBACK = 32 * 1024
MAX_TEXT = 4 * 1024
SHORT_TEXT = 512

BARE_HEADERS = (
    *(h.ATTEMPT, h.FIRST_SENT, h.VERSION, h.TIME_LIMIT, h.HARD_LIMIT),
    *(h.DEAD_REASON, h.ERROR_TYPE, h.ERROR_TEXT, h.FAILED_AT, h.WORKER),
)
REASONS_BEFORE_RUN = ("unknown-task", "malformed", "expired")
"""Why a message is dead whose task has not run: then its letter shows since when its task was unknown."""
# Not `expiration`: a level would let the message go early. Not `user_id`: the broker wants ours. Not CC, BCC, `x-*`.
KEPT_PROPERTIES = ("type", "correlation_id", "reply_to", "timestamp", "app_id", "priority")


def publication_of_send(message: Message, names: Names, now: float, app_id: str | None = None) -> Publication:
    """Return what a message is when it is sent at `now`; raises InvalidArguments if it is due too late, or expires before."""
    milliseconds = int(now * 1000)
    headers: Headers = dict(message.headers)
    first_sent = message.begin_sending(milliseconds)
    headers[h.FIRST_SENT] = time_text(first_sent)
    if message.expires is not None:
        headers[h.EXPIRES] = time_text(_expiry(message.expires, now))
    delay = message.delay or 0.0
    if message.at is not None:
        delay = seconds_until(message.at, now)
    if delay:
        if message.expires is not None and _expiry(message.expires, now) <= int((now + delay) * 1000):
            raise InvalidArguments(LATE_BEFORE_DUE)
        headers[h.ETA] = now_text(now + delay)
        route = ladder.route(names, delay)
        exchange = route.exchange
        headers.update(route.headers)
    else:
        exchange = names.tasks
    properties = Properties()
    # One by one: this is the producer's hot path, and keyword arguments would cost a dictionary.
    properties.content_type = JSON
    properties.headers = headers
    properties.delivery_mode = PERSISTENT
    properties.message_id = message.id
    properties.timestamp = first_sent // 1000
    properties.type = message.task
    if app_id is not None:
        properties.app_id = app_id
    return Publication(exchange, message.queue, properties, message.body)


def publication_of_check(names: Names) -> Publication:
    """Return a publication that no queue takes: if the broker returns it, messages can be sent."""
    properties = Properties()
    properties.message_id = new_id()
    return Publication(names.tasks, f"{names.namespace}.check.{properties.message_id}", properties, b"")


def publication_of_call(
    message: Message, correlation_id: str, timeout: float, names: Names, now: float, app_id: str | None = None
) -> Publication:
    """Return what a message is when its caller waits `timeout` seconds for the reply (direct reply-to)."""
    publication = publication_of_send(message, names, now, app_id)
    properties = publication.properties
    assert properties.headers is not None
    properties.headers[h.EXPIRES] = time_text(_expiry(timeout, now))
    properties.reply_to = REPLY_TO
    properties.correlation_id = correlation_id
    return publication


def _expiry(expires: float | datetime, now: float) -> int:
    """Return a time in milliseconds since the epoch."""
    moment = expires.timestamp() if isinstance(expires, datetime) else now + expires
    return int(moment * 1000)


class RunIdentity(NamedTuple):
    """Which run of a task: the id of the task, the attempt, and when the first one began (seconds since the epoch)."""

    task_id: str
    attempt: int
    first_run: float


def retried(
    delivery: Delivery, delay: float, run: RunIdentity, names: Names, now: float, crashes: int = 0
) -> Publication:
    """
    Return the copy of a delivery that is `run` after `delay`; `crashes` is 0 if the number of crashes is unchanged.

    With another routing key it continues in the queue of that name.
    """
    wait = ladder.clamp(delay)
    headers: Headers = {h.ATTEMPT: run.attempt, h.FIRST_RUN: now_text(run.first_run), h.ETA: now_text(now + wait)}
    if crashes:
        headers[h.CRASHES] = crashes
    copy = _delayed(delivery, run.task_id, wait, headers, names)
    assert copy.properties.headers is not None
    for ended_by_run in (h.RETURNED, h.UNKNOWN_SINCE):
        copy.properties.headers.pop(ended_by_run, None)
    return copy


def postponed(delivery: Delivery, delay: float, task_id: str, names: Names, now: float) -> Publication:
    """Return the copy of a delivery that has not run and is delivered again after `delay`, as the attempt that it was."""
    return _delayed(delivery, task_id, ladder.clamp(delay), {h.RETURNED: now_text(now)}, names)


def deferred(
    delivery: Delivery, delay: float, task_id: str, names: Names, unknown_since: int | None = None
) -> Publication:
    """Return the copy of a delivery that comes after `delay` as it is; `unknown_since` is when its task was first not known."""
    headers: Headers = {} if unknown_since is None else {h.UNKNOWN_SINCE: time_text(unknown_since)}
    return _delayed(delivery, task_id, ladder.clamp(delay), headers, names)


def _delayed(delivery: Delivery, task_id: str, wait: float, headers: Headers, names: Names) -> Publication:
    """Return the copy of a delivery, with these headers of ours, that the delay ladder keeps for `wait` seconds."""
    properties = _copy_allowed_properties(delivery.properties)
    properties.message_id = task_id
    headers = {**(properties.headers or {}), **headers}
    # Each retry ends in the `due` exchange, even without a wait: a message that was accepted is not refused by a limit.
    route = ladder.route(names, wait, via_due=True)
    headers.update(route.headers)
    properties.headers = headers
    return Publication(route.exchange, delivery.queue, properties, delivery.body)


def rescheduled(delivery: Delivery, delay: float, names: Names, now: float) -> Publication:
    """
    Return the copy of a message in the delay ladder that is due in `delay` seconds, as the attempt that it is.

    Raises InvalidArguments if it expires before it is due.
    """
    wait = ladder.clamp(delay)
    due = now + wait
    expires = h.time_of((delivery.properties.headers or {}).get(h.EXPIRES))
    if expires is not None and expires <= due * 1000:
        raise InvalidArguments(f"The message expires at {time_text(expires)}, before it would be due: {now_text(due)}.")
    copy = _delayed(delivery, delivery.properties.message_id or new_id(), wait, {h.ETA: now_text(due)}, names)
    assert copy.properties.headers is not None
    copy.properties.headers.pop(h.RETURNED, None)
    return copy


def republished(delivery: Delivery, names: Names) -> Publication:
    """Return a copy of a delivery for its own queue; the broker counts the deliveries of the copy from zero."""
    properties = _copy_allowed_properties(delivery.properties)
    properties.message_id = delivery.properties.message_id
    return Publication(names.due, delivery.queue, properties, delivery.body)


def dead_lettered(delivery: Delivery, dead: Dead, task_id: str, worker: str, names: Names, now: float) -> Publication:
    """Return the dead letter of a delivery: what it was, and the evidence of why it died; `worker` is a process's name."""
    properties = _copy_allowed_properties(delivery.properties)
    properties.message_id = task_id
    # It may be why the message was refused, so the dead letter keeps it.
    if delivery.properties.content_encoding is not None:
        properties.content_encoding = delivery.properties.content_encoding
    # A dead letter that was moved back by hand describes its last death only.
    headers = {name: value for name, value in (properties.headers or {}).items() if name not in h.EVIDENCE}
    if dead.reason not in REASONS_BEFORE_RUN:
        headers.pop(h.UNKNOWN_SINCE, None)
    headers[h.DEAD_REASON] = dead.reason
    if dead.crashes:
        headers[h.CRASHES] = dead.crashes
    if dead.failure.error_type:
        headers[h.ERROR_TYPE] = truncated(dead.failure.error_type, MAX_TEXT)
    if dead.failure.text:
        headers[h.ERROR_TEXT] = truncated(dead.failure.text, MAX_TEXT)
    if dead.failure.traceback:
        headers[h.TRACEBACK] = truncated(dead.failure.traceback, MAX_TRACEBACK)
    headers[h.FAILED_AT] = now_text(now)
    headers[h.WORKER] = worker
    properties.headers = headers
    return Publication(names.dead, delivery.queue, properties, delivery.body)


def shrink_to_fit(letter: Publication) -> Iterator[Publication]:
    """
    Yield a dead letter, then smaller ones, for headers that do not fit into a frame.

    The second has no traceback, the third none of the sender's headers, which a replay needs, and the last has shortened
    texts, which fit into the smallest frame of AMQP (4096 bytes).
    """
    yield letter
    headers = letter.properties.headers or {}
    bare = {name: value for name, value in headers.items() if name in BARE_HEADERS}
    for rest in (
        {name: value for name, value in headers.items() if name != h.TRACEBACK},
        bare,
        {name: truncated(value, SHORT_TEXT) if isinstance(value, str) else value for name, value in bare.items()},
    ):
        properties = replace(letter.properties, headers=rest)
        yield Publication(letter.exchange, letter.routing_key, properties, letter.body)


def publication_of_reply(delivery: Delivery, body: bytes) -> Publication:
    """Return the reply to a call."""
    call = delivery.properties
    properties = Properties(content_type=JSON, correlation_id=call.correlation_id or call.message_id)
    # A reply is never mandatory: if the caller is gone, only RabbitMQ before 4.2 returns the reply.
    return Publication("", call.reply_to or "", properties, body, mandatory=False)


def is_valid_reply_to(reply_to: str) -> bool:
    """
    Return whether the broker can read this reply address: the name of a queue, or an address of direct reply-to.

    RabbitMQ 3.10 closes the whole connection (541) if the part after `amq.rabbitmq.reply-to.` is not the pid of a process
    in Erlang's external format and a key, each in base64.
    """
    if not reply_to.startswith(REPLY_TO):
        return True
    match = _DIRECT.fullmatch(reply_to)
    if match is None:
        return False
    try:
        pid, key = (base64.b64decode(part, validate=True) for part in match.groups())
    except ValueError:
        return False
    return pid.startswith(_PIDS) and len(pid) >= _SHORTEST_PID and len(key) == _KEY_BYTES


_DIRECT = re.compile(rf"{re.escape(REPLY_TO)}\.([^.]+)\.([^.]+)")
_PIDS = (b"\x83X", b"\x83g")
"""NEW_PID_EXT and PID_EXT: https://www.erlang.org/doc/apps/erts/erl_ext_dist"""
_SHORTEST_PID = 15
_KEY_BYTES = 16


def _copy_allowed_properties(old: Properties) -> Properties:
    new = Properties()
    new.content_type = old.content_type
    for name in KEPT_PROPERTIES:
        value = getattr(old, name)
        if value is not None:
            setattr(new, name, value)
    new.delivery_mode = PERSISTENT
    new.headers = {name: value for name, value in (old.headers or {}).items() if _may_stay(name)}
    return new


def _may_stay(header: str) -> bool:
    lowered = header.lower()
    return not lowered.startswith(("x-", h.WAIT_PREFIX)) and lowered not in h.COPY_HEADERS


def replayed(headers: Headers, now: float) -> Headers:
    """Return the headers of a dead letter that was put back into its queue: it starts again with its first attempt."""
    new = {name: value for name, value in headers.items() if name not in _ENDED_BY_DEATH}
    new[h.REPLAYED] = now_text(now)
    return new


_ENDED_BY_DEATH = frozenset(
    {*h.EVIDENCE, h.ATTEMPT, h.FIRST_RUN, h.CRASHES, h.RETURNED, h.UNKNOWN_SINCE, h.ETA, h.EXPIRES}
)


def publication_of_replay(letter: DeadLetter, queue: str, names: Names, now: float) -> Publication:
    """
    Return what a dead letter becomes when it is to run again: a message for a work queue with the id that it had.

    It starts again with its first attempt. It takes the way of messages that are due, past a limit of the queue's length.
    """
    properties = _whole_properties(letter.message.properties)
    properties.headers = replayed(properties.headers or {}, now)
    return Publication(names.due, queue, properties, letter.message.body)


def publication_of_letter(letter: DeadLetter, names: Names, body: bytes | None = None) -> Publication:
    """
    Return a copy of a dead letter for the queue that it is in, with the same evidence; with another `body` if one is given.

    RabbitMQ's own evidence cannot be published again, so the reason and the time that it has recorded are written as ours.
    """
    properties = _whole_properties(letter.message.properties)
    headers = properties.headers or {}
    if letter.by_broker:
        headers[h.DEAD_REASON] = letter.reason
    if h.FAILED_AT not in headers and letter.failed_at is not None:
        headers[h.FAILED_AT] = now_text(letter.failed_at.timestamp())
    properties.headers = headers
    key = work_queue_of(letter.queue, letter.message.routing_key)
    is_parked = letter.queue == names.parked
    return Publication(
        names.parked if is_parked else names.dead, key, properties, letter.message.body if body is None else body
    )


def _whole_properties(old: Properties) -> Properties:
    """Return the properties of a dead letter's copy, with all that the letter has kept."""
    new = _copy_allowed_properties(old)
    new.message_id, new.content_encoding = old.message_id, old.content_encoding
    return new


def user_headers(headers: Headers | None) -> Headers:
    """Return the headers that are the user's own: neither ours nor the broker's."""
    return {name: value for name, value in (headers or {}).items() if not h.is_reserved(name)}
