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
from amqpworker.model.headers import now_text, time_text
from amqpworker.model.message import (
    ATTEMPT,
    COPY_HEADERS,
    CRASHES,
    DEAD_REASON,
    ERROR_TEXT,
    ERROR_TYPE,
    ETA,
    EVIDENCE,
    EXPIRES,
    FAILED_AT,
    FIRST_RUN,
    FIRST_SENT,
    JSON,
    PERSISTENT,
    REPLAYED,
    REPLY_TO,
    RETURNED,
    TRACEBACK,
    WAIT_PREFIX,
    WORKER,
    Delivery,
    Headers,
    Message,
    Properties,
    Publication,
    is_reserved,
)
from amqpworker.policies.send_options import LATE_BEFORE_DUE
from amqpworker.routing import delay as ladder

if TYPE_CHECKING:
    from amqpworker.model.outcome import Dead
    from amqpworker.routing.topology import Names

MAX_TRACEBACK = 32 * 1024
MAX_TEXT = 4 * 1024
SHORT_TEXT = 512

BARE_HEADERS = (ATTEMPT, FIRST_SENT, DEAD_REASON, ERROR_TYPE, ERROR_TEXT, FAILED_AT, WORKER)
# Not `expiration`: a level would let the message go early. Not `user_id`: the broker wants ours. Not CC, BCC, `x-*`.
KEPT_PROPERTIES = ("type", "correlation_id", "reply_to", "timestamp", "app_id", "priority")


def sent(message: Message, names: Names, now: float, app_id: str | None = None) -> Publication:
    """
    Return what `message` is on the wire when it is sent at `now`.

    Raises:
        InvalidArguments: its `at` is too far away, or it expires before it is due.
    """
    milliseconds = int(now * 1000)
    headers: Headers = dict(message.headers)
    first_sent = message.begin_sending(milliseconds)
    headers[FIRST_SENT] = time_text(first_sent)
    if message.expires is not None:
        headers[EXPIRES] = time_text(_expiry(message.expires, now))
    delay = message.delay or 0.0
    if message.at is not None:
        delay = ladder.seconds_until(message.at, now)
    if delay:
        if message.expires is not None and _expiry(message.expires, now) <= int((now + delay) * 1000):
            raise InvalidArguments(LATE_BEFORE_DUE)
        headers[ETA] = now_text(now + delay)
        route = ladder.route(names, message.queue, delay)
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


def called(
    message: Message, correlation_id: str, timeout: float, names: Names, now: float, app_id: str | None = None
) -> Publication:
    """Return what `message` is on the wire when its caller waits `timeout` seconds for the reply (direct reply-to)."""
    publication = sent(message, names, now, app_id)
    properties = publication.properties
    assert properties.headers is not None
    properties.headers[EXPIRES] = time_text(_expiry(timeout, now))
    properties.reply_to = REPLY_TO
    properties.correlation_id = correlation_id
    return publication


def _expiry(expires: float | datetime, now: float) -> int:
    """Return the time of `expires` in milliseconds since the epoch."""
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
    """Return the copy of a delivery that is `run` after `delay`; `crashes` is 0 if the number of crashes is unchanged."""
    wait = ladder.clamp(delay)
    headers: Headers = {ATTEMPT: run.attempt, FIRST_RUN: now_text(run.first_run), ETA: now_text(now + wait)}
    if crashes:
        headers[CRASHES] = crashes
    copy = _delayed(delivery, run.task_id, wait, headers, names)
    assert copy.properties.headers is not None
    copy.properties.headers.pop(RETURNED, None)
    return copy


def postponed(delivery: Delivery, delay: float, task_id: str, names: Names, now: float) -> Publication:
    """Return the copy of a delivery that has not run and is delivered again after `delay`, as the attempt that it was."""
    return _delayed(delivery, task_id, ladder.clamp(delay), {RETURNED: now_text(now)}, names)


def _delayed(delivery: Delivery, task_id: str, wait: float, headers: Headers, names: Names) -> Publication:
    """Return the copy of a delivery, with these headers of ours, that the delay ladder keeps for `wait` seconds."""
    properties = _copy_allowed_properties(delivery.properties)
    properties.message_id = task_id
    headers = {**(properties.headers or {}), **headers}
    # Each retry ends in the `due` exchange, even without a wait: a message that was accepted is not refused by a limit.
    route = ladder.route(names, delivery.queue, wait, via_due=True)
    headers.update(route.headers)
    properties.headers = headers
    return Publication(route.exchange, delivery.queue, properties, delivery.body)


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
    headers = {name: value for name, value in (properties.headers or {}).items() if name not in EVIDENCE}
    headers[DEAD_REASON] = dead.reason
    if dead.crashes:
        headers[CRASHES] = dead.crashes
    if dead.failure.error_type:
        headers[ERROR_TYPE] = truncated(dead.failure.error_type, MAX_TEXT)
    if dead.failure.text:
        headers[ERROR_TEXT] = truncated(dead.failure.text, MAX_TEXT)
    if dead.failure.traceback:
        headers[TRACEBACK] = truncated(dead.failure.traceback, MAX_TRACEBACK)
    headers[FAILED_AT] = now_text(now)
    headers[WORKER] = worker
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
        {name: value for name, value in headers.items() if name != TRACEBACK},
        bare,
        {name: truncated(value, SHORT_TEXT) if isinstance(value, str) else value for name, value in bare.items()},
    ):
        properties = replace(letter.properties, headers=rest)
        yield Publication(letter.exchange, letter.routing_key, properties, letter.body)


def reply(delivery: Delivery, body: bytes) -> Publication:
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
    """Return the properties of a message that is published again: the allow-list of the wire contract."""
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
    """Return whether a header is kept when its message is published again."""
    lowered = header.lower()
    return not lowered.startswith(("x-", WAIT_PREFIX)) and lowered not in COPY_HEADERS


def replayed(headers: Headers, now: float) -> Headers:
    """Return the headers of a dead letter that was put back into its queue: it starts again with its first attempt."""
    new = {name: value for name, value in headers.items() if name not in _ENDED_BY_DEATH}
    new[REPLAYED] = now_text(now)
    return new


_ENDED_BY_DEATH = frozenset({*EVIDENCE, ATTEMPT, FIRST_RUN, CRASHES, RETURNED, ETA, EXPIRES})


def user_headers(headers: Headers | None) -> Headers:
    """Return the headers that are the user's own: neither ours nor the broker's."""
    return {name: value for name, value in (headers or {}).items() if not is_reserved(name)}


def truncated(text: str, most: int) -> str:
    """Return the text, without its middle if its UTF-8 is longer than `most` bytes."""
    data = text.encode("utf-8", "replace")
    if len(data) <= most:
        return data.decode("utf-8")
    half = most // 2 - 16
    return f"{data[:half].decode('utf-8', 'ignore')}\n… cut …\n{data[-half:].decode('utf-8', 'ignore')}"
