"""
`app.pending`: list, show, cancel and reschedule the messages that wait in the delay ladder.

Decides in which order a message is removed and what replaces it is confirmed, so that none is lost; `pending_walk` reads the
ladder, `cancelling` announces cancels and reports what was removed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Protocol

from amqpworker.client.cancelling import CancellingApp, announce, report_removed
from amqpworker.client.event_loop_warning import warn_in_event_loop
from amqpworker.client.pending_walk import LadderWalk
from amqpworker.errors import InvalidArguments
from amqpworker.model.headers import ETA
from amqpworker.model.pending_message import PendingMessage
from amqpworker.policies.durations import duration, seconds_until, timestamp_of
from amqpworker.routing.envelope import rescheduled

if TYPE_CHECKING:
    from amqpworker.model.message import Publication

BATCH = 500


class PendingApp(CancellingApp, Protocol):
    """What `app.pending` needs of an app."""

    url: str


class Pending:
    """
    The messages that wait in the delay ladder of an app: delayed ones, retries, and those whose task no worker knows.

    They are those of its broker and namespace, of other apps too. Each method reads the levels of the ladder one after the other;
    messages that fall due in a level wait while it is read. A message that is just between two levels is not found: it may still
    run.

    Raises, all methods:
        NotConnected: the connection could not be opened, or was lost; nothing is lost with it.
        QueueBusy: another program has been reading a level for too long.
        AccessRefused: the user lacks the permission `read` on a level.
    """

    def __init__(self, app: PendingApp, on_busy: Callable[[str], None] = lambda _: None) -> None:
        self._app = app
        self._on_busy = on_busy

    def walk(self) -> LadderWalk:
        """Return a reader of the ladder, for tools that show how long it took."""
        warn_in_event_loop("app.pending", has_counterpart=False)
        return LadderWalk(self._app.url, self._app.settings, self._app.plan.names, time.time, self._on_busy)

    def list(
        self,
        *,
        task: str | None = None,
        queue: str | None = None,
        due_before: datetime | float | timedelta | None = None,
    ) -> Iterator[PendingMessage]:
        """
        Yield the messages that wait, those of the longest waits first: of one task, for one queue, due before a time.

        `due_before` is an aware datetime, or a duration from now on (seconds, or a timedelta). Memory is constant, so a level is
        kept from delivering as long as its messages are iterated: collect what takes long.

        Raises:
            InvalidArguments: `due_before` is neither a time with a zone nor a duration.
        """
        chosen = selection(task, queue, due_before, time.time())

        def messages() -> Iterator[PendingMessage]:
            # Closed before the connection, which would requeue a part of a level only.
            with self.walk() as walk, closing(walk.messages()) as found:
                yield from filter(chosen, found)

        return messages()

    def show(self, id: str) -> PendingMessage | None:  # noqa: A002 - the public name
        """Return the message with this id; `None` if it was not found, which does not mean that it has run."""
        with self.walk() as walk:
            return find(walk, id)

    def cancel(
        self, *ids: str, force: bool = False, due: datetime | None = None
    ) -> dict[str, Literal["removed", "announced"]]:
        """
        Cancel messages: announce it to the workers, then remove those that are found in the ladder.

        Returns for each id what has become of it: `removed`, it will never run; `announced`, it does not start on a worker that is
        connected, or starts, until seven days after it is `due` (default: now). If it runs already, `current().cancelled` becomes
        true; with `force` it is ended.

        If it raises QueueBusy or AccessRefused, it is announced, and nothing more is removed.

        Raises:
            SendError: it may not be announced: cancel again, any number of times.
            InvalidArguments: an id is not valid, or `due` has no time zone.
            ResultStoreError: the result store cannot be written; those not removed by then are announced.
        """
        with self.walk() as walk:
            removed = cancel(self._app, walk, ids, force, None if due is None else timestamp_of(due, "due"))[0]
        return {one: "removed" if one in removed else "announced" for one in dict.fromkeys(ids)}

    def reschedule(
        self,
        id: str,  # noqa: A002 - the public name
        *,
        delay: float | timedelta | None = None,
        at: datetime | None = None,
    ) -> bool:
        """
        Have a message be due in `delay` from now on (0 is now), or `at` a time; false if it was not found.

        It keeps its id and its attempt; if several have this id, it is done with all of them. It is published again, and removed
        once that is confirmed: if the confirm is lost, it may run at both times.

        Raises:
            InvalidArguments: not exactly one of `delay` and `at` is given, it is not valid, or the message expires before it.
            SendError: it was not confirmed; the message is still there.
        """
        with self.walk() as walk:
            return reschedule(self._app, walk, id, delay_function(delay, at)) is not None


def delay_function(delay: float | timedelta | None, at: datetime | None) -> Callable[[float], float]:
    """Return what makes a delay in seconds of the present time; raises InvalidArguments unless exactly one is given and valid."""
    if (delay is None) == (at is None):
        raise InvalidArguments("reschedule() needs either delay or at.")
    if at is not None:
        moment = at
        seconds_until(moment, time.time())
        return lambda now: seconds_until(moment, now)
    assert delay is not None
    seconds = duration(delay, "delay")
    return lambda _: seconds


def selection(
    task: str | None, queue: str | None, due_before: datetime | float | timedelta | None, now: float
) -> Callable[[PendingMessage], bool]:
    """Return what decides whether a message is chosen; raises InvalidArguments for an invalid `due_before`."""
    limit: float | None = None
    if isinstance(due_before, datetime):
        limit = timestamp_of(due_before, "due_before")
    elif due_before is not None:
        limit = now + duration(due_before, "due_before")

    def is_chosen(message: PendingMessage) -> bool:
        return (
            (task is None or message.task == task)
            and (queue is None or message.queue == queue)
            and (limit is None or message.due.timestamp() < limit)
        )

    return is_chosen


def find(walk: LadderWalk, wanted: str) -> PendingMessage | None:
    """Return the message with an id; levels below its own are not read."""
    with closing(walk.messages()) as messages:
        return next((message for message in messages if message.id == wanted), None)


def cancel(
    app: PendingApp,
    walk: LadderWalk,
    ids: Iterable[str],
    force: bool,
    due: float | None,
    on_announced: Callable[[float], None] = lambda _: None,
) -> tuple[set[str], float]:
    """
    Announce cancels and remove what is found; return the ids of what was removed, and until when the others hold.

    `on_announced` is called with that time as soon as it is announced: it holds then, whatever fails afterwards.
    """
    wanted = set(ids)
    if not wanted:
        return set(), time.time()
    until = announce(app, wanted, due=due, force=force)
    on_announced(until)
    removed: set[str] = set()
    with closing(walk.walks()) as walks:
        for level, messages in walks:
            found = (message for message in messages if message.id in wanted)
            while batch := list(islice(found, BATCH)):
                deliveries = [message.message for message in batch]
                report_removed(app, deliveries)
                level.remove(deliveries)
                removed.update(message.id for message in batch)
    return removed, until


def reschedule(app: PendingApp, walk: LadderWalk, wanted: str, delay: Callable[[float], float]) -> float | None:
    """
    Publish what has an id again, and remove it; return when it is due (seconds since the epoch), `None` if it was not found.

    Ids are the users' own, so several messages may have one: each is published. A copy of one that was published is removed only.
    """
    published: dict[tuple[object, ...], Any] = {}
    due: float | None = None
    with closing(walk.walks()) as walks:
        for level, messages in walks:
            found = [one for one in messages if one.id == wanted and not _is_own_copy(one, published)]
            if not found:
                continue
            now = time.time()
            wait = delay(now)
            distinct = {_identity(one): one for one in reversed(found) if _identity(one) not in published}
            copies = {key: rescheduled(one.message, wait, app.plan.names, now) for key, one in distinct.items()}
            for key, copy in copies.items():
                _publish(app, copy)
                published[key] = (copy.properties.headers or {}).get(ETA)
            level.remove([one.message for one in found])
            due = now + wait if copies else due
    return due


def _identity(message: PendingMessage) -> tuple[object, ...]:
    """Return what two copies of one message share, and two messages with one id do not."""
    return message.task, message.queue, message.attempt, message.first_sent, message.message.body


def _is_own_copy(message: PendingMessage, published: dict[tuple[object, ...], Any]) -> bool:
    """Return whether it was published a moment ago, into a level that is read later."""
    eta = (message.message.properties.headers or {}).get(ETA)
    return eta is not None and published.get(_identity(message)) == eta


def _publish(app: PendingApp, publication: Publication) -> None:
    """Publish a copy; returns once it is confirmed."""
    plan = app.plan
    requirements = plan.requirements(publication.routing_key, delayed=publication.exchange != plan.names.due)
    app.producer.publish_all([publication], requirements, time.monotonic() + app.settings.send_timeout)
