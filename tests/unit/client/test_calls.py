"""Pending calls: each ends exactly once, by its reply, its time-out or the loss of the connection."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from amqpworker.client.calls import Calls, ThreadCall
from amqpworker.errors import CallTimeout, Unconfirmed


def opened(calls: Calls) -> ThreadCall:
    return calls.add(ThreadCall(calls))


def test_a_reply_that_is_there_is_returned_without_waiting() -> None:
    calls = Calls()
    call = opened(calls)
    assert calls.resolve(call.correlation_id, b"1")
    assert call.wait(0) == b"1"
    assert call.wait(0) == b"1"
    assert len(calls) == 0


def test_a_reply_wakes_the_thread_that_waits() -> None:
    calls = Calls()
    call = opened(calls)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call.wait, 10)
        assert calls.resolve(call.correlation_id, b"1")
        assert waiting.result(10) == b"1"


def test_without_a_reply_waiting_ends_in_time_and_the_call_is_forgotten() -> None:
    calls = Calls()
    with pytest.raises(CallTimeout, match=r"within 0\.01 s"):
        opened(calls).wait(0.01)
    assert len(calls) == 0


@pytest.mark.parametrize("timeout", [0, -1.0])
def test_no_time_at_all_times_out_at_once(timeout: float) -> None:
    with pytest.raises(CallTimeout):
        opened(Calls()).wait(timeout)


def test_a_very_long_timeout_is_allowed() -> None:
    calls = Calls()
    call = opened(calls)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call.wait, float("inf"))
        calls.resolve(call.correlation_id, b"1")
        assert waiting.result(10) == b"1"


def test_a_late_reply_an_unknown_one_and_a_second_one_are_dropped() -> None:
    calls = Calls()
    call = opened(calls)
    with pytest.raises(CallTimeout):
        call.wait(0)
    assert not calls.resolve(call.correlation_id, b"late")
    assert not calls.resolve("never opened", b"1")
    other = opened(calls)
    assert calls.resolve(other.correlation_id, b"first")
    assert not calls.resolve(other.correlation_id, b"second")


def test_a_call_that_was_not_sent_can_be_forgotten() -> None:
    calls = Calls()
    call = opened(calls)
    assert call.forget()
    assert not call.forget()
    assert not calls.resolve(call.correlation_id, b"1")


def test_no_two_calls_of_any_process_have_one_correlation_id_and_it_is_short() -> None:
    ids = [opened(calls).correlation_id for calls in (Calls(), Calls(), Calls()) for _ in range(100)]
    assert len(set(ids)) == 300
    assert max(map(len, ids)) < 20


def test_a_lost_connection_ends_every_call_that_was_requested_with_an_error_of_its_own() -> None:
    calls = Calls()
    lost = [opened(calls) for _ in range(5)]
    for call in lost:
        call.requested_on = 7
    requested_elsewhere = opened(calls)
    requested_elsewhere.requested_on = 8
    not_requested = opened(calls)
    replied = opened(calls)
    calls.resolve(replied.correlation_id, b"1")
    assert calls.has_requests_on(7)
    calls.fail_requests_on(7)
    assert not calls.has_requests_on(7)
    assert calls.has_requests_on(8)
    calls.resolve(requested_elsewhere.correlation_id, b"3")
    raised = []
    for call in lost:
        with pytest.raises(Unconfirmed, match="was lost") as caught:
            call.wait(0)
        raised.append(caught.value)
    assert len(set(map(id, raised))) == 5
    assert replied.wait(0) == b"1"
    assert len(calls) == 1
    calls.fail_requests_on(7)
    assert len(calls) == 1
    assert calls.resolve(not_requested.correlation_id, b"2")
    assert not_requested.wait(0) == b"2"


def test_256_threads_hammering_get_each_their_own_reply_and_leave_nothing() -> None:
    calls = Calls()
    sent: list[str] = []
    wrong: list[str] = []
    finished = threading.Event()

    def caller() -> None:
        for turn in range(10):
            call = opened(calls)
            name = call.correlation_id
            sent.append(name)
            try:
                if call.wait(0.0005 if turn % 3 == 0 else 30) != name.encode():
                    wrong.append(name)
            except CallTimeout:
                if turn % 3:
                    wrong.append(name)

    def replier() -> None:
        while not finished.is_set() or sent:
            batch = [sent.pop() for _ in range(len(sent))]
            random.shuffle(batch)
            for name in batch:
                calls.resolve(name, name.encode())
                calls.resolve(name, b"a second reply")
            time.sleep(0)

    replying = threading.Thread(target=replier)
    replying.start()
    callers = [threading.Thread(target=caller) for _ in range(256)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    finished.set()
    replying.join()
    assert wrong == []
    assert len(calls) == 0


class CallsMachine(RuleBasedStateMachine):
    """Against the plain truth: a dictionary of what each call must end as."""

    waiting = Bundle("waiting")

    def __init__(self) -> None:
        super().__init__()
        self.calls = Calls()
        self.truth: dict[ThreadCall, bytes | str | None] = {}

    @rule(target=waiting)
    def open(self) -> ThreadCall:
        call = opened(self.calls)
        self.truth[call] = None
        return call

    @rule(call=waiting, body=st.binary())
    def resolve(self, call: ThreadCall, body: bytes) -> None:
        waits = call in self.truth and self.truth[call] is None
        assert self.calls.resolve(call.correlation_id, body) is waits
        if waits:
            self.truth[call] = body

    @rule(call=waiting, channel=st.integers(1, 2))
    def request(self, call: ThreadCall, channel: int) -> None:
        call.requested_on = channel

    @rule(channel=st.integers(1, 2))
    def fail_requests_on(self, channel: int) -> None:
        asked = [call for call, end in self.truth.items() if end is None and call.requested_on == channel]
        before = len(self.calls)
        self.calls.fail_requests_on(channel)
        assert before - len(self.calls) == len(asked)
        self.truth.update(dict.fromkeys(asked, "lost"))

    @rule(call=consumes(waiting))
    def forget(self, call: ThreadCall) -> None:
        assert call.forget() is (self.truth.pop(call) is None)

    @rule(call=consumes(waiting))
    def wait(self, call: ThreadCall) -> None:
        end = self.truth.pop(call)
        if isinstance(end, bytes):
            assert call.wait(0) == end
        else:
            with pytest.raises(CallTimeout if end is None else Unconfirmed):
                call.wait(0)

    @invariant()
    def only_what_waits_is_kept(self) -> None:
        assert len(self.calls) == sum(end is None for end in self.truth.values())


TestCallsMachine = CallsMachine.TestCase
TestCallsMachine.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
