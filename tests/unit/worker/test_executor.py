"""Which outcome a delivery has: before its task is called, and after."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from tenacity import Retrying, retry_if_result, stop_after_attempt, stop_after_delay

from amqpworker.errors import Reject, RetryLater
from amqpworker.model.clock import Clock
from amqpworker.model.headers import time_text
from amqpworker.model.message import Delivery, Properties
from amqpworker.model.outcome import Dead, Discarded, Done, Outcome, Postpone, Retry, Snooze
from amqpworker.policies.hook_functions import Hooks
from amqpworker.worker.context import Run
from amqpworker.worker.executor import TaskExecutor
from tests.unit.worker.settling import registered

NOW = 1_790_000_000.0
MOST = 2**63 - 1


CLOCK = Clock(lambda: NOW, lambda: 0.0)


def milliseconds(from_now: float) -> int:
    return int((NOW + from_now) * 1000)


def in_words(from_now: float) -> str:
    return time_text(milliseconds(from_now))


def runner_of(
    function: Callable[..., Any], *, retry: Any = None, stores: bool = False, clock: Clock = CLOCK
) -> TaskExecutor:
    return TaskExecutor({"example": registered(function, retry)}, stores, clock=clock)


def delivery_of(body: bytes = b"{}", headers: dict[str, Any] | None = None, **properties: Any) -> Delivery:
    known: dict[str, Any] = {"type": "example", "content_type": "application/json", "message_id": "id", **properties}
    return Delivery(1, False, "amqpworker.tasks", "work", Properties(headers=headers, **known), body)


def outcome_of(runner: TaskExecutor, delivery: Delivery) -> Outcome:
    admitted = runner.admit(delivery)
    return runner.call(admitted) if isinstance(admitted, Run) else admitted


def run_of(runner: TaskExecutor, delivery: Delivery) -> Run:
    admitted = runner.admit(delivery)
    assert isinstance(admitted, Run), admitted
    return admitted


def dead(outcome: Outcome) -> Dead:
    assert isinstance(outcome, Dead), outcome
    return outcome


def nothing() -> None: ...


def test_a_task_is_called_with_the_arguments_in_its_message() -> None:
    seen: list[Any] = []

    def take(a: int, *, b: str = "x") -> None:
        seen.append((a, b))

    assert outcome_of(runner_of(take), delivery_of(b'{"a": 1, "b": "y"}')) == Done()
    assert outcome_of(runner_of(take), delivery_of(b'{"a": 2}')) == Done()
    assert seen == [(1, "y"), (2, "x")]


# ---- messages that cannot be read -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("properties", "told"),
    [
        ({"content_type": "application/x-python-serialize"}, "content_type is 'application/x-python-serialize'"),
        ({"content_type": ""}, "content_type is ''"),
        ({"content_type": "application/json; charset=latin-1"}, "content_type"),
        ({"content_encoding": "gzip"}, "content_encoding is 'gzip'"),
        ({"type": None}, "no `type`"),
        ({"type": ""}, "no `type`"),
    ],
)
def test_a_message_in_another_format_is_dead_lettered_as_malformed_with_the_reason(
    properties: dict[str, Any], told: str
) -> None:
    outcome = dead(outcome_of(runner_of(nothing), delivery_of(**properties)))
    assert outcome.reason == "malformed"
    assert told in outcome.failure.text


def test_a_message_without_a_content_type_is_read_as_json() -> None:
    assert outcome_of(runner_of(nothing), delivery_of(content_type=None)) == Done()


def test_a_message_whose_properties_could_not_be_read_is_malformed() -> None:
    delivery = delivery_of()
    delivery.problem = "header 'when' is a time beyond the year 9999"
    outcome = dead(outcome_of(runner_of(nothing), delivery))
    assert (outcome.reason, outcome.failure.text) == ("malformed", delivery.problem)


def test_a_task_that_is_not_registered_is_unknown() -> None:
    delivery = delivery_of(type="other.task", headers={"aw-unknown-since": milliseconds(-600)})
    outcome = dead(outcome_of(runner_of(nothing), delivery))
    assert outcome.reason == "unknown-task"
    assert "'other.task'" in outcome.failure.text


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'"a"', b"{", b'{"a": NaN}', b'{"a": 1e999}', b"\xff", b'{"b": 1}', b'{"a": "x"}']
)
def test_a_body_that_does_not_match_the_signature_is_malformed(body: bytes) -> None:
    def take(a: int) -> None: ...

    delivery = delivery_of(body, {"aw-unknown-since": milliseconds(-600)})
    outcome = dead(outcome_of(runner_of(take), delivery))
    assert outcome.reason == "malformed"
    assert "'example'" in outcome.failure.text


# ---- times ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expires",
    [
        milliseconds(-0.001),
        str(milliseconds(-60)),
        milliseconds(0),
        0,
        -MOST,
        in_words(-0.001),
        datetime.fromtimestamp(NOW - 1, UTC),
    ],
)
def test_a_message_past_its_expiry_is_dead_lettered_as_expired(expires: Any) -> None:
    assert dead(outcome_of(runner_of(nothing), delivery_of(headers={"aw-expires": expires}))).reason == "expired"


@pytest.mark.parametrize("expires", [milliseconds(0.001), MOST, "9999-12-31T23:59:59Z", in_words(60)])
def test_a_message_before_its_expiry_runs(expires: Any) -> None:
    assert outcome_of(runner_of(nothing), delivery_of(headers={"aw-expires": expires})) == Done()


def test_an_expired_call_is_discarded_only_if_clock_skew_cannot_be_the_reason() -> None:
    runs = delivery_of(headers={"aw-expires": milliseconds(-4.9)}, reply_to="r")
    assert isinstance(outcome_of(runner_of(nothing), runs), Done)
    late = delivery_of(headers={"aw-expires": milliseconds(-5)}, reply_to="r")
    assert isinstance(outcome_of(runner_of(nothing), late), Discarded)


def test_a_minute_in_which_all_calls_of_a_sender_expired_is_logged_with_both_times(
    caplog: pytest.LogCaptureFixture,
) -> None:
    monotonic = [0.0]
    runner = runner_of(nothing, clock=Clock(lambda: NOW, lambda: monotonic[0]))
    late = delivery_of(headers={"aw-expires": milliseconds(-6.5)}, reply_to="r", app_id="shop")
    in_time = delivery_of(headers={"aw-expires": milliseconds(1)}, reply_to="r", app_id="shop")
    moments = [(0, late), (30, in_time), (40, late), (90, late), (101, late)]
    for now, delivery in moments:
        monotonic[0] = now
        assert "calls_expired" not in caplog.text
        outcome_of(runner, delivery)
    (line,) = [record.getMessage() for record in caplog.records if "calls_expired" in record.getMessage()]
    for part in ("shop", "2026-09-21T14:13:13.500Z", "2026-09-21T14:13:20.000Z", "a clock is wrong", "discarded=3"):
        assert part in line


@pytest.mark.parametrize("expires", [-MOST, -1, 0])
def test_an_expired_call_can_be_reported_whatever_its_expiry(expires: int) -> None:
    monotonic = iter((0.0, 61.0))
    runner = runner_of(nothing, clock=Clock(lambda: NOW, lambda: next(monotonic)))
    for _ in range(2):
        delivery = delivery_of(headers={"aw-expires": expires}, reply_to="r")
        assert isinstance(outcome_of(runner, delivery), Discarded)


@pytest.mark.parametrize("name", ["aw-eta", "aw-expires", "aw-first-sent", "aw-returned", "aw-attempt", "aw-crashes"])
def test_an_invalid_amqpworker_header_makes_a_message_malformed(name: str) -> None:
    outcome = dead(outcome_of(runner_of(nothing), delivery_of(headers={name: "2030-12-24T18:00:00"})))
    assert outcome.reason == "malformed"
    assert f"'{name}' is '2030-12-24T18:00:00'" in outcome.failure.text


def test_an_eta_as_text_is_honoured() -> None:
    outcome = outcome_of(runner_of(nothing), delivery_of(headers={"aw-eta": in_words(5)}))
    assert isinstance(outcome, Postpone)
    assert outcome.delay == pytest.approx(5, abs=0.001)


def test_an_expired_call_of_an_unknown_task_is_dead_lettered_as_unknown() -> None:
    delivery = delivery_of(headers={"aw-expires": milliseconds(-1)}, reply_to="r", type="other")
    assert dead(outcome_of(runner_of(nothing), delivery)).reason == "unknown-task"


def test_a_message_more_than_a_second_early_is_postponed() -> None:
    outcome = outcome_of(runner_of(nothing), delivery_of(headers={"aw-eta": milliseconds(5)}))
    assert isinstance(outcome, Postpone)
    assert outcome.delay == pytest.approx(5)


@pytest.mark.parametrize("early", [1.0, 0.5, 0, -100])
def test_a_message_at_most_a_second_early_runs(early: float) -> None:
    assert outcome_of(runner_of(nothing), delivery_of(headers={"aw-eta": milliseconds(early)})) == Done()


def test_an_early_message_that_was_postponed_once_runs_and_the_log_reports_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    headers = {"aw-eta": milliseconds(5), "aw-returned": milliseconds(-1)}
    assert outcome_of(runner_of(nothing), delivery_of(headers=headers)) == Done()
    assert "task_runs_early" in caplog.text
    assert "early=5.0" in caplog.text


# ---- which run ------------------------------------------------------------------------------------------------------


def test_a_first_run_is_attempt_one_and_begins_now() -> None:
    run = run_of(runner_of(nothing), delivery_of(headers={"tenant": "acme", "aw-first-sent": 5, "x-death": []}))
    assert (run.attempt, run.first_run, run.id) == (1, NOW, "id")
    assert run.headers == {"tenant": "acme"}, "the sender's own"


@pytest.mark.parametrize("as_text", [False, True])
def test_attempt_and_first_run_of_a_retry_are_read_from_its_headers(as_text: bool) -> None:
    headers: dict[str, Any] = {"aw-attempt": 3, "aw-first-run": milliseconds(-60)}
    headers = {name: str(value) for name, value in headers.items()} if as_text else headers
    run = run_of(runner_of(nothing), delivery_of(headers=headers))
    assert (run.attempt, run.first_run) == (3, NOW - 60)


def test_a_message_without_an_id_is_given_one() -> None:
    runner = runner_of(nothing)
    ids = {run_of(runner, delivery_of(message_id=None)).id for _ in range(5)}
    assert len(ids) == 5
    assert all(ids)


@pytest.mark.parametrize("claimed", [1, MOST, 2**40, "999999999999999999"])
def test_attempt_and_first_run_are_within_bounds_whatever_the_headers_claim(claimed: Any) -> None:
    headers = {"aw-attempt": claimed, "aw-first-run": claimed}
    run = run_of(runner_of(nothing), delivery_of(headers=headers))
    assert 1 <= run.attempt < MOST
    assert 0 <= run.first_run <= NOW


# ---- what a return value means --------------------------------------------------------------------------------------


def give_number() -> int:
    return 5


def test_a_result_without_a_store_or_a_caller_is_not_serialized() -> None:
    assert outcome_of(runner_of(give_number), delivery_of()) == Done()


def test_a_result_is_serialized_for_the_store_and_for_the_caller() -> None:
    assert outcome_of(runner_of(give_number, stores=True), delivery_of()) == Done(b"5")
    assert outcome_of(runner_of(give_number), delivery_of(reply_to="r")) == Done(b"5")


def test_a_task_that_stores_no_result_still_has_one_for_its_caller() -> None:
    runner = runner_of(give_number, stores=True)
    runner._tasks["example"].stores_result = False
    assert outcome_of(runner, delivery_of()) == Done()
    assert outcome_of(runner, delivery_of(reply_to="r")) == Done(b"5")


def test_a_result_that_does_not_match_its_type_hint_is_refused_and_its_task_is_done() -> None:
    def wrong() -> int:
        return "text"  # type: ignore[return-value]

    outcome = outcome_of(runner_of(wrong, stores=True), delivery_of())
    assert isinstance(outcome, Done)
    assert outcome.refusal is not None
    assert "InvalidResult" in outcome.refusal.error_type
    assert outcome_of(runner_of(wrong, stores=False), delivery_of()) == Done(), "no one wants it"


def test_a_coroutine_that_a_plain_function_returns_is_a_failure() -> None:
    async def real() -> None: ...

    def hidden() -> None:
        return real()  # type: ignore[return-value]

    outcome = dead(outcome_of(runner_of(hidden), delivery_of()))
    assert outcome.reason == "failed"
    assert "never awaited" in outcome.failure.text


def test_a_policy_can_retry_because_of_a_result() -> None:
    retry = Retrying(retry=retry_if_result(lambda value: value == 5), stop=stop_after_attempt(2))
    runner = runner_of(give_number, retry=retry)
    first = outcome_of(runner, delivery_of())
    assert isinstance(first, Retry)
    assert dead(outcome_of(runner, delivery_of(headers={"aw-attempt": 2}))).reason == "failed"


# ---- what an exception means ----------------------------------------------------------------------------------------


def failing(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_a_failure_is_retried_after_the_delays_of_the_policy_and_then_dead_lettered() -> None:
    runner = runner_of(failing(OSError("away")), retry=[2, timedelta(seconds=30)])
    delays = []
    for attempt in (1, 2):
        outcome = outcome_of(runner, delivery_of(headers={"aw-attempt": attempt}))
        assert isinstance(outcome, Retry)
        delays.append(outcome.delay)
        assert outcome.failure.error_type == "OSError"
    assert delays == [2, 30]
    assert dead(outcome_of(runner, delivery_of(headers={"aw-attempt": 3}))).reason == "failed"


def test_the_time_since_the_first_run_counts_for_the_policy() -> None:
    runner = runner_of(failing(OSError()), retry=Retrying(stop=stop_after_delay(600), wait=lambda _: 1))
    assert isinstance(outcome_of(runner, delivery_of(headers={"aw-first-run": milliseconds(-599)})), Retry)
    assert dead(outcome_of(runner, delivery_of(headers={"aw-first-run": milliseconds(-601)}))).reason == "failed"


def test_a_rejected_message_is_dead_lettered_whatever_its_policy() -> None:
    outcome = dead(outcome_of(runner_of(failing(Reject("no such user")), retry=5), delivery_of()))
    assert (outcome.reason, outcome.failure.text) == ("rejected", "no such user")


def test_retry_later_counts_and_asks_the_policy_whether_to_stop() -> None:
    runner = runner_of(failing(RetryLater(30)), retry=2)
    outcome = outcome_of(runner, delivery_of(headers={"aw-attempt": 2}))
    assert isinstance(outcome, Retry)
    assert outcome.delay == 30
    assert dead(outcome_of(runner, delivery_of(headers={"aw-attempt": 3}))).reason == "failed"


def test_retry_later_that_does_not_count_never_stops() -> None:
    runner = runner_of(failing(RetryLater(30, count=False)))
    outcome = outcome_of(runner, delivery_of(headers={"aw-attempt": 100}))
    assert isinstance(outcome, Snooze)
    assert outcome.delay == 30


def raising_from(cause: Exception, signal: Exception, *, implicitly: bool = False) -> Callable[[], None]:
    def task() -> None:
        try:
            raise cause
        except Exception as error:
            if implicitly:
                raise signal  # noqa: B904 - as many tasks do
            raise signal from error

    return task


@pytest.mark.parametrize("implicitly", [False, True])
def test_a_retry_later_without_an_attempt_left_is_dead_lettered_with_the_error_that_caused_it(implicitly: bool) -> None:
    task = raising_from(ConnectionError("refused by db:5432"), RetryLater(0.1), implicitly=implicitly)
    outcome = dead(outcome_of(runner_of(task, retry=2), delivery_of(headers={"aw-attempt": 3})))
    assert outcome.reason == "failed"
    assert outcome.failure.error_type == "ConnectionError"
    assert outcome.failure.text == "refused by db:5432 (RetryLater, and no attempt is left after attempt 3)"
    assert "ConnectionError: refused by db:5432" in outcome.failure.traceback


def test_a_retry_later_without_a_cause_reports_that_no_attempt_is_left() -> None:
    failure = dead(outcome_of(runner_of(failing(RetryLater(30)), retry=0), delivery_of())).failure
    assert failure.error_type.endswith(".RetryLater")
    assert failure.text == "no attempt is left after attempt 1 (again in 30 s)"


def test_a_retry_later_with_a_broken_policy_is_dead_lettered_with_the_error_of_the_policy() -> None:
    runner = runner_of(failing(RetryLater(30)), retry=Retrying(stop=lambda _: 1 / 0, wait=lambda _: 1))
    failure = dead(outcome_of(runner, delivery_of())).failure
    assert failure.text.startswith("The retry policy is broken: its 'stop' failed with ZeroDivisionError")


@pytest.mark.parametrize("count", [True, False])
def test_a_retry_later_that_is_retried_names_the_error_that_caused_it(count: bool) -> None:
    task = raising_from(ConnectionError("refused"), RetryLater(0.5, count=count))
    outcome = outcome_of(runner_of(task, retry=2), delivery_of())
    assert isinstance(outcome, Retry if count else Snooze)
    assert outcome.failure.text == "again in 0.5 s (ConnectionError: refused)"


class Unfinished(RetryLater):
    def __init__(self, **given: Any) -> None:
        vars(self).update(given)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"delay": 5},
        {"count": True},
        *({"delay": delay, "count": True} for delay in ("5", None, -1, 10**400, float("inf"))),
    ],
)
def test_an_incomplete_retry_later_is_an_ordinary_exception(given: dict[str, Any]) -> None:
    runner = runner_of(failing(Unfinished(**given)), retry=[7])
    outcome = outcome_of(runner, delivery_of())
    assert isinstance(outcome, Retry)
    assert outcome.delay == 7
    failure = dead(outcome_of(runner, delivery_of(headers={"aw-attempt": 2}))).failure
    assert failure.error_type.endswith(".Unfinished")
    assert "must call that of RetryLater" in failure.traceback
    followed = outcome_of(runner_of(failing(Unfinished(delay=5, count=True)), retry=[7]), delivery_of())
    assert isinstance(followed, Retry)
    assert followed.delay == 5


def test_a_base_exception_is_not_retried_unless_the_policy_accepts_it() -> None:
    assert dead(outcome_of(runner_of(failing(SystemExit(1)), retry=3), delivery_of())).reason == "failed"
    always = Retrying(retry=lambda _: True, stop=stop_after_attempt(3))
    assert isinstance(outcome_of(runner_of(failing(SystemExit(1)), retry=always), delivery_of()), Retry)


# ---- evidence -------------------------------------------------------------------------------------------------------


def failure_text(error: BaseException) -> tuple[str, str, str]:
    failure = dead(outcome_of(runner_of(failing(error)), delivery_of())).failure
    return failure.error_type, failure.text, failure.traceback


def test_a_failure_has_the_type_text_and_traceback_of_its_error_without_frames_of_amqpworker() -> None:
    kind, text, traceback = failure_text(ZeroDivisionError("by zero"))
    assert (kind, text) == ("ZeroDivisionError", "by zero")
    assert "in fail" in traceback
    assert "worker/executor.py" not in traceback


def test_a_failure_can_be_encoded_even_if_its_class_name_cannot() -> None:
    class Named(Exception):
        __qualname__ = "Gone\ud800"

    evidence = failure_text(Named("why"))
    assert evidence[0].endswith(".Gone\\ud800")
    assert evidence[1] == "why"
    for text in evidence:
        text.encode()


class OurError(Exception):
    pass


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def test_an_error_is_named_with_its_module() -> None:
    assert failure_text(OurError())[0] == f"{__name__}.OurError"


def test_an_error_whose_text_cannot_be_read_is_a_failure_too() -> None:
    kind, text, traceback = failure_text(Mute())
    assert kind.endswith("Mute")
    assert "could not be read" in text
    assert "in fail" in traceback


def test_a_long_failure_is_truncated_and_keeps_its_beginning_and_end() -> None:
    _, text, traceback = failure_text(ValueError("begin" + "é" * 1_000_000 + "the end"))
    assert len(text.encode()) <= 4096
    assert text.startswith("begin")
    assert text.endswith("the end")
    assert len(traceback.encode()) <= 32 * 1024


def test_a_traceback_of_ten_thousand_frames_is_bounded_in_size() -> None:
    namespace: dict[str, Any] = {}
    lines = [f"def f{n}(): f{n + 1}()" for n in range(800)]
    exec("\n".join([*lines, "def f800(): raise ValueError('deep')"]), namespace)

    def chain(length: int) -> None:
        try:
            namespace["f0"]()
        except ValueError as error:
            if not length:
                raise
            try:
                chain(length - 1)
            except ValueError as other:
                raise ValueError("again") from other.with_traceback(error.__traceback__)

    def deep() -> None:
        chain(12)

    began = time.monotonic()
    failure = dead(outcome_of(runner_of(deep), delivery_of())).failure
    assert time.monotonic() - began < 5
    assert len(failure.traceback.encode()) <= 32 * 1024


def test_a_failure_contains_no_password() -> None:
    kept = failure_text(ConnectionError("cannot reach amqp://app:hunter2@broker/ or postgres://me:s3cr%40t@db:5432/x"))
    assert "hunter2" not in str(kept)
    assert "s3cr" not in str(kept)
    assert "amqp://app:***@broker/" in kept[1]


@pytest.mark.parametrize(
    "properties", [{"type": "amqp://app:hunter2@broker/"}, {"content_type": "amqp://app:hunter2@broker/"}]
)
def test_properties_of_foreign_messages_are_quoted_without_passwords_and_within_bounds(
    properties: dict[str, Any],
) -> None:
    long_ago = {"aw-unknown-since": milliseconds(-600)}
    text = dead(outcome_of(runner_of(nothing), delivery_of(headers=long_ago, **properties))).failure.text
    assert "amqp://app:***@broker/" in text
    delivery = delivery_of()
    delivery.problem = "x" * 10_000
    assert len(dead(outcome_of(runner_of(nothing), delivery)).failure.text) <= 4096


def test_an_error_with_a_lone_surrogate_can_be_encoded() -> None:
    kept = failure_text(ValueError("\ud800"))
    assert all(part.encode() is not None for part in kept)


# ---- what is kept for hooks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed", [{"hooks": Hooks(on_success=[print])}, {"app": SimpleNamespace(hooks=Hooks(on_success=[print]))}]
)
def test_the_returned_value_is_kept_for_the_hooks_of_its_success(changed: dict[str, Any]) -> None:
    runner = TaskExecutor({"example": registered(lambda: {1}, **changed)}, stores_results=False)
    run = run_of(runner, delivery_of())
    assert runner.call(run) == Done()
    assert run.returned == {1}


@pytest.mark.parametrize("hooks", [Hooks(), Hooks(on_dead=[print])])
def test_without_such_hooks_nothing_is_kept(hooks: Hooks) -> None:
    runner = TaskExecutor({"example": registered(lambda: 1, hooks=hooks)}, stores_results=False)
    run = run_of(runner, delivery_of())
    assert runner.call(run) == Done()
    assert not hasattr(run, "returned")


@pytest.mark.parametrize(("returned", "value"), [(1, b"1"), (None, b"null"), (object(), None)])
def test_an_isolated_process_sends_the_value_for_hooks_if_json_can_carry_it(
    returned: object, value: bytes | None
) -> None:
    def example() -> Any:
        return returned

    runner = TaskExecutor({"example": registered(example, hooks=Hooks(on_success=[print]))}, stores_results=False)
    assert runner.run(run_of(runner, delivery_of()), asyncio.run) == Done(value)
    assert (
        TaskExecutor({"example": registered(example)}, stores_results=False).run(
            run_of(runner, delivery_of()), asyncio.run
        )
        == Done()
    )
