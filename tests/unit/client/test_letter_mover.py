"""Letters are removed once their copies are confirmed, and only then."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from typing import Any

import pytest

from amqpworker.client import letter_mover
from amqpworker.client.letter_mover import LetterMover, check_rate, no_copy
from amqpworker.client.letter_spool import read_first
from amqpworker.errors import AmqpWorkerError, ConfigError, InvalidArguments, NotConnected, Unconfirmed
from amqpworker.model.dead_letter import DeadLetter
from amqpworker.model.message import Delivery, Properties, Publication


def letter(number: int) -> DeadLetter:
    properties = Properties(message_id=f"id-{number}", headers={"n": number})
    return DeadLetter.of(Delivery(number, False, "dead", "emails", properties, b"{}"), "emails.dead", number)


class Lane:
    """Ends each publication as `answer` decides: with an error, with None, or not at all if it returns `...`."""

    def __init__(self, answer: Callable[[str], Any]) -> None:
        self.session = self.keeper = self
        self.answer = answer
        self.written: list[str] = []

    def wake(self) -> None: ...

    def make_pending(self, publication: Publication, _: Any, __: float, on_done: Callable[..., None]) -> Any:
        class Pending:
            resend = True
            wanted = staticmethod(lambda: True)

        pending: Any = Pending()
        pending.publication, pending.on_done = publication, on_done
        return pending

    def submit(self, pending: Any, *, urgent: bool) -> None:
        assert isinstance(urgent, bool)
        assert not pending.resend
        name = pending.publication.properties.message_id
        if not pending.wanted():
            pending.on_done(Unconfirmed("The message is no longer needed."))
            return
        self.written.append(name)
        answer = self.answer(name)
        if isinstance(answer, KeyboardInterrupt):
            raise answer
        if answer is not ...:
            pending.on_done(answer)


class Walk:
    def __init__(self) -> None:
        self.removed: list[str] = []

    def remove(self, deliveries: Sequence[Delivery], on_removed: Callable[[], None]) -> None:
        self.removed += [str(one.properties.message_id) for one in deliveries]
        on_removed()


def copy_of(one: DeadLetter) -> Publication:
    return Publication("due", "emails", one.message.properties, one.message.body)


def moved(answer: Callable[[str], Any], count: int = 4, **options: Any) -> tuple[LetterMover, Walk, Lane]:
    lane, walk = Lane(answer), Walk()
    mover = LetterMover(lambda: lane, 0.05, options.pop("make_copy", copy_of), **options)  # type: ignore[arg-type,return-value]
    try:
        for number in range(count):
            mover.add(letter(number), walk)
        mover.flush(walk)
    except (AmqpWorkerError, KeyboardInterrupt) as error:
        mover.moved.errors[type(error).__name__] = 1
    return mover, walk, lane


def test_letters_are_removed_in_batches_once_their_copies_are_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letter_mover, "BATCH", 2)
    batches: list[int] = []
    mover, walk, _ = moved(lambda _: None, 5, on_moved=batches.append)
    assert walk.removed == [f"id-{number}" for number in range(5)]
    assert (mover.moved.count, batches) == (5, [2, 2, 1])


@pytest.mark.parametrize("error", [InvalidArguments("too large"), ConfigError("no queue")])
def test_a_letter_that_cannot_be_sent_stays_and_the_others_leave(error: AmqpWorkerError) -> None:
    mover, walk, _ = moved(lambda name: error if name == "id-1" else None)
    assert walk.removed == ["id-0", "id-2", "id-3"]
    assert (mover.moved.refused, mover.moved.errors) == (1, {str(error): 1})

    def make_copy(one: DeadLetter) -> Publication:
        if one.name == "id-1":
            raise error
        return copy_of(one)

    mover, walk, lane = moved(lambda _: None, make_copy=make_copy)
    assert walk.removed == lane.written == ["id-0", "id-2", "id-3"]


def test_after_a_lost_confirm_nothing_more_is_written_and_what_was_confirmed_is_removed() -> None:
    mover, walk, lane = moved(lambda name: Unconfirmed("lost") if name == "id-2" else None)
    assert walk.removed == ["id-0", "id-1"]
    assert lane.written == ["id-0", "id-1", "id-2"]
    assert "Unconfirmed" in mover.moved.errors


def test_a_copy_that_never_ends_leaves_its_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letter_mover, "GRACE", 0.0)
    mover, walk, _ = moved(lambda name: ... if name == "id-1" else None)
    assert walk.removed == ["id-0", "id-2", "id-3"]
    assert "Unconfirmed" in mover.moved.errors


def test_an_interrupted_move_removes_what_is_confirmed_by_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letter_mover, "LAST_WAIT", 0.0)
    mover, walk, _ = moved(lambda name: KeyboardInterrupt() if name == "id-2" else None)
    assert walk.removed == ["id-0", "id-1"]
    assert "KeyboardInterrupt" in mover.moved.errors


def test_letters_that_are_removed_while_the_caller_is_interrupted_are_counted() -> None:
    class InterruptedWalk(Walk):
        def remove(self, deliveries: Sequence[Delivery], on_removed: Callable[[], None]) -> None:
            super().remove(deliveries, on_removed)
            raise KeyboardInterrupt

    lane, walk = Lane(lambda _: None), InterruptedWalk()
    mover = LetterMover(lambda: lane, 1.0, copy_of)  # type: ignore[arg-type,return-value]
    mover.add(letter(1), walk)
    with pytest.raises(KeyboardInterrupt):
        mover.flush(walk)
    assert (mover.moved.count, walk.removed) == (1, ["id-1"])


def test_letters_without_copies_are_only_removed_and_counted_by_name() -> None:
    lane, walk = Lane(lambda _: None), Walk()
    mover = LetterMover(lambda: lane, 1.0, no_copy)  # type: ignore[arg-type,return-value]
    mover.moved.by_name = {"id-1": 0, "nope": 0}
    for number in range(3):
        mover.add(letter(number), walk)
    mover.flush(walk)
    assert mover.moved.by_name == {"id-1": 1, "nope": 0}
    assert (walk.removed, lane.written) == (["id-0", "id-1", "id-2"], [])


def test_errors_are_counted_by_their_text_and_few_are_kept() -> None:
    mover, _, _ = moved(InvalidArguments, 50)
    assert len(mover.moved.errors) == letter_mover.MAX_ERRORS
    assert mover.moved.refused == 50
    mover, _, _ = moved(lambda _: InvalidArguments("same"), 50)
    assert mover.moved.errors == {"same": 50}


def test_letters_that_could_not_be_removed_are_not_counted_as_moved() -> None:
    class LostWalk:
        def remove(self, *_: Any) -> None:
            raise NotConnected("lost")

    lane = Lane(lambda _: None)
    mover = LetterMover(lambda: lane, 1.0, copy_of)  # type: ignore[arg-type,return-value]
    mover.add(letter(1), LostWalk())
    with pytest.raises(NotConnected):
        mover.flush(LostWalk())
    assert (mover.moved.count, mover.has_published) == (0, True)


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_that_is_not_a_number_of_letters_is_refused(rate: float) -> None:
    with pytest.raises(InvalidArguments, match=f"rate={rate}"):
        check_rate(rate)
    check_rate(None)
    check_rate(0.5)


def test_reading_that_is_interrupted_between_two_letters_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    def letters() -> Generator[DeadLetter, None, None]:
        try:
            yield letter(1)
        finally:
            ended.append("requeued")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("amqpworker.client.letter_spool.pickle.dump", interrupted)
    try:
        next(read_first(letters()))
    except KeyboardInterrupt:
        assert ended == ["requeued"]
    else:
        pytest.fail("it was not interrupted")


def test_letters_that_were_read_first_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amqpworker.client.letter_spool.MAX_MEMORY", 100)
    reading: list[str] = []

    def letters() -> Any:
        for number in range(20):
            yield letter(number)
        reading.append("read to the end")

    for number, one in enumerate(read_first(letters())):
        assert reading
        assert (one.name, one.position, one.queue) == (f"id-{number}", number, "emails.dead")
        assert one.message.properties == letter(number).message.properties


def test_each_move_that_ends_without_a_confirm_raises_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The traceback of one that is raised again would keep the letters of each move before."""
    monkeypatch.setattr(letter_mover, "GRACE", 0.0)
    raised = []
    for _ in range(2):
        mover = LetterMover(lambda: Lane(lambda _: ...), 0.01, copy_of)  # type: ignore[arg-type,return-value]
        mover.add(letter(1), Walk())
        with pytest.raises(Unconfirmed) as caught:
            mover.flush(Walk())
        raised.append(caught.value)
    assert raised[0] is not raised[1]
