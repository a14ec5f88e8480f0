"""
What `app.dead` offers: list, replay and drop dead letters.

Decides that an id that several letters have is refused, unless all of them are meant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from amqpworker.client.event_loop_warning import warn_in_event_loop
from amqpworker.client.letter_mover import LetterMover, check_rate, no_copy
from amqpworker.client.letter_queues import letter_queues
from amqpworker.client.letter_spool import read_first
from amqpworker.client.letter_walks import LetterWalks
from amqpworker.client.parked_watch import ParkedWatch
from amqpworker.errors import InvalidArguments
from amqpworker.log.logger import get_logger
from amqpworker.model.dead_letter import DeadLetter
from amqpworker.model.letter_selection import ANY, Selection
from amqpworker.policies.durations import duration

if TYPE_CHECKING:
    from amqpworker.client.letter_mover import MakeCopy, Moved
    from amqpworker.client.producer import Producer
    from amqpworker.routing.queues import Plan
    from amqpworker.settings import Settings

log = get_logger(__name__)


class DeadLetters:
    """
    The dead letters of an app: `app.dead`.

    A letter is named by its id, one without an id by `DeadLetter.name`. While a queue is read, no one else can read it: the
    methods wait for the other reader, and raise `QueueBusy` if that takes too long.
    """

    def __init__(self, url: str, settings: Settings, plan: Plan, producer: Producer) -> None:
        self._url = url
        self._settings = settings
        self._plan = plan
        self._producer = producer

    def list(
        self,
        *,
        queue: str | None = None,
        task: str | None = None,
        reason: str | None = None,
        group: str | None = None,
        older_than: float | timedelta | None = None,
        parked: bool = False,
    ) -> Iterator[DeadLetter]:
        """
        Yield dead letters, queue by queue, the oldest first; they stay where they are.

        Without a `queue` those of all queues of the app are read. `group` is a `DeadLetter.fingerprint`, `older_than` are
        seconds since it died. With `parked` messages are read that had no queue when they were due.

        Raises:
            ConfigError: the queue does not exist.
            QueueBusy: another program reads the queue.
            NotConnected: the broker could not be reached, or the connection was lost.
            AccessRefused: the user may not read the queue.
            InvalidArguments: `older_than` is not a duration.

        Example:
            for letter in app.dead.list(task="shop.charge", older_than=3600):
                print(letter.name, letter.error)
        """
        selection = Selection(
            tasks=_one(task),
            reasons=_one(reason),
            groups=_one(group),
            died_before=None if older_than is None else _ago(duration(older_than, "older_than")),
        )
        return read_first(self._read(() if queue is None else (queue,), selection, parked))

    def replay(
        self,
        *ids: str,
        rate: float | None = None,
        to: str | None = None,
        all_copies: bool = False,
        parked: bool = False,
    ) -> dict[str, int]:
        """
        Run dead letters again, each with its id and its first attempt; return how many letters each id had, 0 if none.

        At most `rate` per second leave. They go to the queue that they died in, or `to` another one. If more messages are parked
        afterwards than before, perhaps since no binding leads to that queue, `letters_parked` is logged as a warning.

        Raises:
            InvalidArguments: several letters have one of the ids, and not `all_copies` are meant; or a letter cannot be sent.
            ConfigError: the queue that they would go to does not exist.
            SendError: the broker did not confirm one; letters that were not confirmed stay.
            QueueBusy: another program reads a queue.
            AccessRefused: the user may not read a queue, or not write to the exchange for due messages.
        """
        check_rate(rate)
        with self._walks() as walks:
            mover = self._mover(walks.targets(to).copy_of, rate)
            watch = ParkedWatch(walks)
            self._move(walks, ids, mover, all_copies, parked)
            if more := watch.more(-mover.moved.by_queue[watch.queue]):
                log.warning("letters_parked", queue=watch.queue, messages=more)
        return _counts_of(mover.moved)

    def drop(self, *ids: str, all_copies: bool = False, parked: bool = False) -> dict[str, int]:
        """
        Delete dead letters; return how many letters each id had, 0 if none.

        Raises:
            InvalidArguments: several letters have one of the ids, and not `all_copies` are meant.
            QueueBusy: another program reads a queue.
            NotConnected: the broker could not be reached, or the connection was lost.
            AccessRefused: the user may not read a queue.
        """
        mover = self._mover(no_copy)
        with self._walks() as walks:
            self._move(walks, ids, mover, all_copies, parked)
        return _counts_of(mover.moved)

    def _walks(self) -> LetterWalks:
        warn_in_event_loop("app.dead", has_counterpart=False)
        return LetterWalks(self._url, self._settings, self._plan)

    def _mover(self, make_copy: MakeCopy, rate: float | None = None) -> LetterMover:
        return LetterMover(lambda: self._producer.publisher.sends, self._settings.send_timeout, make_copy, rate)

    def _read(self, queues: Sequence[str], selection: Selection, parked: bool) -> Generator[DeadLetter, None, None]:
        with self._walks() as walks:
            found = walks.depths(letter_queues(self._plan, queues, parked), must_exist=bool(queues))
            for queue, depth in found.items():
                if depth is not None:
                    yield from walks.read(queue, selection)

    def _move(
        self, walks: LetterWalks, ids: tuple[str, ...], mover: LetterMover, all_copies: bool, parked: bool
    ) -> None:
        mover.moved.by_name = dict.fromkeys(ids, 0)
        queues = walks.existing(letter_queues(self._plan, (), parked))
        selection = Selection(names=frozenset(ids))
        if not ids:
            return
        if not all_copies:
            counts = Counter(letter.name for queue in queues for letter in walks.read(queue, selection))
            if several := [f"{name!r} ({count})" for name, count in counts.items() if count > 1]:
                raise InvalidArguments(
                    f"Several dead letters have one id: {', '.join(several)}. all_copies=True means all of them."
                )
        for queue in queues:
            walks.move(queue, selection, mover)


def _counts_of(moved: Moved) -> dict[str, int]:
    """Return how many letters of each name have left; raises InvalidArguments if some stay."""
    if moved.errors:
        text = next(iter(moved.errors))
        raise InvalidArguments(f"{moved.refused} of the dead letters stay where they are: {text}")
    return moved.by_name


def _one(value: str | None) -> frozenset[str]:
    return ANY if value is None else frozenset({value})


def _ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)
