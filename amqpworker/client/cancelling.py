"""
Announce to all worker processes that messages are cancelled, and report those that were removed from a queue.

Decides what a cancel promises: once it is confirmed no worker that reads the stream of cancels starts the task, and if the app
has a result store, where workers check delayed messages, none does. Which messages wait, and where, is not decided here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from amqpworker.errors import InvalidArguments, ResultStoreError, Unroutable
from amqpworker.model.cancel import REASON, Cancel, encode_cancel, holds_until, stored_id
from amqpworker.model.headers import first_sent_text, time_text
from amqpworker.model.message import MAX_SHORT_BYTES, Delivery, Publication, fits_short_string
from amqpworker.model.outcome import Failure
from amqpworker.model.reply import encode_failed
from amqpworker.results.result_writer import ResultWriter
from amqpworker.results.row import ResultRow
from amqpworker.results.store import ResultStore
from amqpworker.routing.cancel_messages import publication_of_cancel, waits
from amqpworker.routing.envelope import is_valid_reply_to, publication_of_reply

if TYPE_CHECKING:
    from amqpworker.client.producer import Producer
    from amqpworker.routing.queues import Plan
    from amqpworker.settings import Settings

BATCH = 1000
REPLY_TIMEOUT = 5.0
REMOVED = Failure("", "the message was cancelled, and removed before its task started")


class CancellingApp(Protocol):
    """What cancelling needs of an app."""

    plan: Plan
    settings: Settings

    @property
    def producer(self) -> Producer:
        """Its sending side."""

    def store(self) -> ResultStore | None:
        """Return its result store, if it has one."""


def announce(
    app: CancellingApp,
    ids: Iterable[str],
    *,
    due: float | None = None,
    force: bool = False,
    first_sent: int | None = None,
) -> float:
    """
    Announce that the messages with these ids are cancelled; return until when that holds, in seconds since the epoch.

    `due` is when they are due (seconds since the epoch), `None` if that is not known. It returns once the broker has confirmed
    all of it, and the result store has it. Announcing twice does no harm. `first_sent` (milliseconds) is when a message was sent
    by another clock, perhaps: the cancel is later than that in any case.

    Raises:
        SendError: not all of them were confirmed in time; announce them again.
        InvalidArguments: an id is not valid.
        ResultStoreError: they are announced, but the result store cannot be written.
        ConfigError: the stream cannot be declared, or the store cannot be opened.
    """
    now = app.producer.now()
    at = int(now * 1000) if first_sent is None else max(int(now * 1000), first_sent + 1)
    until = holds_until(due, now)
    cancels = [Cancel(_checked_id(one), at, until, force) for one in ids]
    app_id = app.settings.app_id
    publications = [publication_of_cancel(one, due, app.plan.names, now, app_id) for one in cancels]
    _publish(app, publications, waits(due, now) > 0)
    if (store := app.store()) is not None:
        _store(store, cancels, now)
    return until / 1000


def _checked_id(task_id: str) -> str:
    if not fits_short_string(task_id):
        raise InvalidArguments(
            f"The id of a message must be a string of 1 to {MAX_SHORT_BYTES} bytes of UTF-8, got {task_id!r:.60}."
        )
    return task_id


def _publish(app: CancellingApp, publications: Sequence[Publication], delayed: bool) -> None:
    """Publish entries of the stream of cancels: one that is doubled does no harm."""
    plan = app.plan
    required = plan.if_declared(plan.cancelled)
    requirements = (*required, *plan.if_declared(plan.ladder)) if delayed else required
    until = time.monotonic() + app.settings.send_timeout
    for start in range(0, len(publications), BATCH):
        try:
            app.producer.publish_all(publications[start : start + BATCH], requirements, until)
        except Unroutable as error:
            raise Unroutable(
                f"Nothing was cancelled: the stream {plan.names.cancelled!r} does not exist on this broker, or is not bound. "
                f"Declare it, with `amqpworker topology declare`."
            ) from error


def _store(store: ResultStore, cancels: Sequence[Cancel], now: float) -> None:
    rows = [
        ResultRow(stored_id(one.id), REASON, "", encode_cancel(one), time_text(one.at), now, one.until / 1000)
        for one in cancels
    ]
    for error in store.put(rows).values():
        raise ResultStoreError(
            f"The cancel is announced, but not stored: a worker that has lost its connection may not know it. {error}"
        ) from error


def report_removed(app: CancellingApp, deliveries: Iterable[Delivery]) -> None:
    """
    Report messages that a user has removed from a queue as cancelled: to the result store, and to callers that wait.

    Call it before they are acknowledged: if it raises, none of them is to be. A result that is stored already stays. Replies
    are best effort, as those of workers are.

    Raises:
        ResultStoreError: not all of it was stored.
    """
    store = app.store()
    results = None if store is None else ResultWriter(store, app.settings.result_ttl)
    reply = encode_failed(REASON, REMOVED)
    for delivery in deliveries:
        properties = delivery.properties
        if results is not None and properties.message_id is not None:
            first_sent = first_sent_text(properties.headers)
            error = results.write_unless_there(properties.message_id, REASON, properties.type or "", reply, first_sent)
            if error is not None:
                raise error
        if properties.reply_to and is_valid_reply_to(properties.reply_to):
            app.producer.publisher.replies.publish(publication_of_reply(delivery, reply), (), REPLY_TIMEOUT)
