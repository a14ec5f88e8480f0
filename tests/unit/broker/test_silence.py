"""When a broker counts as silent, and how long an answer is waited for."""

from __future__ import annotations

from amqpworker.broker.silence import CHECK_EVERY, AnswerTimeout, Silence, Step


class Broker:
    """A clock and the counts of one connection, checked as the I/O thread does."""

    def __init__(self, lasted: float = 0.0) -> None:
        self.now = self.begun = 1000.0
        self.received = self.written = 0
        self.unsent = 0
        self.silence = Silence(self.now, 0, lasted)

    def until(self, step: Step, most: float = 60.0) -> float:
        """Look until this is to be done; return after how many seconds, -1 where it never was."""
        while self.now < self.begun + most:
            self.now += CHECK_EVERY
            if self.silence.check(self.now, self.received, self.written, self.unsent) is step:
                return self.now - self.begun
        return -1.0


def test_a_silent_broker_is_asked_once_and_then_left_within_eight_seconds() -> None:
    broker = Broker()
    asked = broker.until(Step.PROBE)
    assert 3 <= asked <= 5
    assert asked + 2 <= broker.until(Step.GIVE_UP) <= 8


def test_a_silence_that_may_have_lasted_for_a_while_is_shorter_now() -> None:
    assert Broker(3.0).until(Step.GIVE_UP) <= 5


def test_any_byte_is_a_sign_of_life() -> None:
    broker = Broker()
    broker.until(Step.PROBE)
    for _ in range(20):
        broker.received += 1
        broker.begun = broker.now
        assert broker.until(Step.GIVE_UP, 5.5) == -1.0


def test_a_question_that_waits_behind_what_was_written_before_is_not_held_against_the_broker() -> None:
    broker = Broker()
    broker.written = broker.unsent = 10_000_000
    broker.until(Step.PROBE)
    broker.written += 20
    for _ in range(100):  # 50 s
        broker.unsent -= 90_000
        assert broker.until(Step.GIVE_UP, broker.now - broker.begun + CHECK_EVERY) == -1.0
    broker.begun = broker.now
    assert 0 < broker.until(Step.GIVE_UP) <= 8, "nothing is taken any more"


def test_a_process_that_was_stopped_itself_listens_before_it_decides() -> None:
    broker = Broker()
    broker.now += 3600
    assert broker.silence.check(broker.now, 0, 0, 0) is Step.NOTHING


def test_the_patience_for_an_answer_doubles_with_each_round_of_the_addresses_up_to_sixteen_seconds() -> None:
    patience = AnswerTimeout(2)
    told = []
    for number in range(8):
        patience.on_opened(number)
        told.append(patience.seconds(number))
        patience.on_left()
    assert told == [4, 4, 8, 8, 16, 16, 16, 16]
    assert patience.seconds(100.0) == 4, "a connection that was kept has answered"
