"""Which acknowledgements are sent, against the broker's own rules."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from amqpworker.broker.ack_tracker import Ack, AckTracker


class Broker:
    """
    What RabbitMQ keeps of a channel's deliveries (its rabbit_channel:collect_acks).

    An acknowledgement must name a tag that is not settled: the broker closes the channel otherwise, also where
    `multiple` names a tag that was acknowledged singly.
    """

    def __init__(self) -> None:
        self.unacked: dict[int, None] = {}
        self.frames = 0

    def ack(self, ack: Ack) -> set[int]:
        assert ack.tag in self.unacked, f"PRECONDITION_FAILED - unknown delivery tag {ack.tag}"
        self.frames += 1
        covered = {tag for tag in self.unacked if tag <= ack.tag} if ack.multiple else {ack.tag}
        for tag in covered:
            del self.unacked[tag]
        return covered

    def nack(self, tag: int) -> None:
        assert tag in self.unacked, f"PRECONDITION_FAILED - unknown delivery tag {tag}"
        del self.unacked[tag]


class Acknowledging(RuleBasedStateMachine):
    """Deliveries come, are finished in any order, acknowledged in any portions, some are requeued."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = Broker()
        self.tracker = AckTracker()
        self.next_tag = 1
        self.running: list[int] = []
        self.finished: list[int] = []

    @rule(count=some.integers(1, 12))
    def deliver(self, count: int) -> None:
        for tag in range(self.next_tag, self.next_tag + count):
            self.broker.unacked[tag] = None
            self.running.append(tag)
        self.next_tag += count

    @precondition(lambda self: self.running)
    @rule(data=some.data(), count=some.integers(1, 8))
    def finish(self, data: some.DataObject, count: int) -> None:
        for _ in range(min(count, len(self.running))):
            self.finished.append(self.running.pop(data.draw(some.integers(0, len(self.running) - 1))))

    @precondition(lambda self: self.running)
    @rule(data=some.data())
    def requeue(self, data: some.DataObject) -> None:
        tag = self.running.pop(data.draw(some.integers(0, len(self.running) - 1)))
        self.broker.nack(tag)
        self.tracker.note_requeued(tag)

    @rule()
    def tell(self) -> None:
        covered: set[int] = set()
        for ack in self.tracker.settle(self.finished):
            covered |= self.broker.ack(ack)
        assert covered == set(self.finished), "acknowledged is what was finished, all of it and nothing else"
        self.finished.clear()

    @rule()
    def reconnect(self) -> None:
        """A new channel counts from one again, and has a tracker of its own."""
        self.broker = Broker()
        self.tracker = AckTracker()
        self.next_tag = 1
        self.running.clear()
        self.finished.clear()

    @invariant()
    def the_broker_waits_for_what_is_not_acknowledged(self) -> None:
        assert set(self.broker.unacked) == {*self.running, *self.finished}

    def teardown(self) -> None:
        self.finished += self.running
        self.running.clear()
        self.tell()
        assert not self.broker.unacked
        assert not self.tracker._ahead, "nothing is remembered once all is settled"


Acknowledging.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAcknowledging = Acknowledging.TestCase


def test_a_settled_prefix_is_one_acknowledgement() -> None:
    assert AckTracker().settle(range(1, 257)) == [Ack(256, True)]


def test_a_single_delivery_is_acknowledged_singly() -> None:
    tracker = AckTracker()
    assert tracker.settle([1]) == [Ack(1, False)]
    assert tracker.settle([2]) == [Ack(2, False)]


def test_what_is_settled_behind_a_long_task_is_acknowledged_at_once() -> None:
    tracker = AckTracker()
    assert tracker.settle([2, 3, 5]) == [Ack(2, False), Ack(3, False), Ack(5, False)]
    assert tracker.settle([4, 6]) == [Ack(4, False), Ack(6, False)]


def test_multiple_names_the_highest_tag_that_the_broker_still_waits_for() -> None:
    tracker = AckTracker()
    tracker.settle([3, 4])
    # 4 ends the settled prefix, but naming it again would close the channel
    assert tracker.settle([1, 2]) == [Ack(2, True)]
    assert tracker.settle([5]) == [Ack(5, False)]


def test_nothing_is_sent_where_nothing_was_settled() -> None:
    tracker = AckTracker()
    assert tracker.settle([]) == []
    tracker.note_requeued(1)
    assert tracker.settle([]) == []


def test_a_delivery_that_was_requeued_needs_no_acknowledgement_and_holds_up_none() -> None:
    tracker = AckTracker()
    tracker.note_requeued(2)
    assert tracker.settle([1, 3]) == [Ack(3, True)]


def test_a_tag_that_was_acknowledged_is_never_named_again() -> None:
    """A channel with hundreds of deliveries must not be lost because one of them was settled twice."""
    tracker = AckTracker()
    tracker.settle([1, 2, 5])
    assert tracker.settle([2, 5]) == []
    assert tracker.settle([1, 3]) == [Ack(3, False)]
    assert tracker.note_requeued(6)
    assert not tracker.note_requeued(6)
    assert not tracker.note_requeued(1)
    assert tracker.settle([6, 4]) == [Ack(4, False)]


@given(some.sets(some.integers(1, 400), max_size=200))
def test_frames_are_as_few_as_the_gaps_allow(finished: set[int]) -> None:
    frames = AckTracker().settle(finished)
    prefix = next(tag for tag in range(1, 402) if tag not in finished) - 1
    assert len(frames) == (prefix > 0) + len([tag for tag in finished if tag > prefix])
