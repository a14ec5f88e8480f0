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
from typing import TYPE_CHECKING, Literal, Protocol

from amqpworker.client.cancelling import CancellingApp, announce, report_removed
from amqpworker.client.event_loop_warning import warn_in_event_loop
from amqpworker.client.pending_walk import LadderWalk
from amqpworker.client.send_errors import refuse_io_thread, was_closed_before
from amqpworker.errors import InvalidArguments
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

    They are those of its broker and namespace, of other apps too. Each method reads the levels of the ladder, one after the other; while it reads one, messages that fall due in it wait until it
    has ended. A message that is just between two levels is not found: it may still run.

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
        warn_in_event_loop("pending")
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
            with self.walk() as walk:
                yield from filter(chosen, walk.messages())

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

        Raises:
            SendError: it was not announced.
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

        It keeps its id and its attempt. It is published again, and removed once that is confirmed: if the confirm is lost, it may
        run at both times.

        Raises:
            InvalidArguments: not exactly one of `delay` and `at` is given, it is not valid, or the message expires before it.
            SendError: it was not confirmed; the message is still there.
        """
        with self.walk() as walk:
            return reschedule(self._app, walk, id, seconds_of(delay, at)) is not None


def seconds_of(delay: float | timedelta | None, at: datetime | None) -> Callable[[float], float]:
    """Return what gives the delay from a time on, in seconds; raises InvalidArguments unless exactly one is given and valid."""
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
    """Return whether a message is chosen; raises InvalidArguments for an invalid `due_before`."""
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
    app: PendingApp, walk: LadderWalk, ids: Iterable[str], force: bool, due: float | None
) -> tuple[set[str], float]:
    """Announce cancels and remove what is found; return the ids of what was removed, and until when the others hold."""
    wanted = set(ids)
    if not wanted:
        return set(), time.time()
    until = announce(app, wanted, due=due, force=force)
    removed: set[str] = set()
    with closing(walk.walks()) as walks:
        for level, messages in walks:
            found = (message for message in messages if message.id in wanted)
            while batch := list(islice(found, BATCH)):
                deliveries = [message.message for message in batch]
                report_removed(app, deliveries)
                level.take(deliveries)
                removed.update(message.id for message in batch)
    return removed, until


def reschedule(app: PendingApp, walk: LadderWalk, wanted: str, delay: Callable[[float], float]) -> float | None:
    """Publish a message again and remove it; return when it is due (seconds since the epoch), `None` if it was not found."""
    with closing(walk.walks()) as walks:
        for level, messages in walks:
            if copies := [message for message in messages if message.id == wanted]:
                now = time.time()
                wait = delay(now)
                _publish(app, rescheduled(copies[0].message, wait, app.plan.names, now))
                level.take([copy.message for copy in copies])
                return now + wait
    return None


def _publish(app: PendingApp, publication: Publication) -> None:
    """Publish a copy; returns once it is confirmed."""
    plan = app.plan
    requirements = plan.requirements(publication.routing_key, delayed=publication.exchange != plan.names.due)
    until = time.monotonic() + app.settings.send_timeout
    while True:
        refuse_io_thread(None)
        pending = app.producer.publisher.sends.publish(publication, requirements, resend=True)
        pending.wait()
        if pending.error is None:
            return
        if not (was_closed_before(pending.error) and time.monotonic() < until):
            raise pending.error
