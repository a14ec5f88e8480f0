"""What `retry=` takes: policies and their short forms, and what is refused because it would be ignored."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta
from typing import Any

import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st
from tenacity import RetryCallState, Retrying, TryAgain

from amqpworker.errors import ConfigError, RetryLater
from amqpworker.policies.retry import policy
from tests.unit.policies.retry_policies import ERROR, run, waits


@given(st.lists(st.integers(0, 10_000).map(float), max_size=8))
def test_a_list_is_the_waits_of_the_retries(listed: list[float]) -> None:
    assert waits(policy(listed)) == waits(policy(tuple(listed))) == listed


@given(st.integers(0, 20))
def test_a_number_is_that_many_retries_after_the_first_run(number: int) -> None:
    decided = waits(policy(number))
    assert len(decided) == number
    assert all(low <= wait <= low + 1 for low, wait in zip([1, 4, 16, 64, 256], decided, strict=False))
    assert all(wait == 300 for wait in decided[5:])


def test_by_default_a_task_has_three_retries_that_do_not_run_all_at_once() -> None:
    assert len(waits(policy())) == 3
    assert len({policy().decide(ERROR, run()) for _ in range(20)}) > 1


@pytest.mark.parametrize("never", [None, 0, [], ()])
def test_a_task_without_retries_is_never_run_again(never: Any) -> None:
    asked = policy(never)
    assert asked.decide(ERROR, run()) is None
    assert asked.decide(TryAgain(), run()) is None
    assert not asked.allows(run(), RetryLater(5))


def test_a_wait_may_be_a_timedelta() -> None:
    assert waits(policy([timedelta(minutes=2), 0.5])) == [120, 0.5]


@pytest.mark.parametrize("default", [None, 3, [1], Retrying(stop=tenacity.stop_after_attempt(5))])
def test_by_default_every_exception_is_retried_and_an_exit_is_not(default: Any) -> None:
    asked = policy(default)
    assert asked.decide(SystemExit(1), run()) is None
    assert asked.decide(KeyboardInterrupt(), run()) is None
    assert (asked.decide(Exception(), run()) is None) == (default is None)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        (True, "it takes a tenacity.Retrying, a number of retries"),
        (False, "it takes a tenacity.Retrying"),
        (1.5, "it takes a tenacity.Retrying"),
        ("3", "it takes a tenacity.Retrying"),
        ({1: 2}, "it takes a tenacity.Retrying"),
        (-1, "retry=-1: the number of retries must be zero or more"),
        ([1, -1], r"retry\[1\]=-1: it must be zero or more seconds"),
        ([float("nan")], r"retry\[0\]=nan"),
        ([1, True], r"retry\[1\]=True: a duration is a number of seconds"),
        ([1, "2"], r"retry\[1\]='2'"),
        ([1, 1e10], r"retry\[1\] is too long"),
        (tenacity.AsyncRetrying(stop=tenacity.stop_after_attempt(3)), "never awaited"),
        (tenacity.stop_after_attempt(3), "part of a policy"),
        (tenacity.wait_fixed(3), "part of a policy"),
        (tenacity.retry_if_exception_type(OSError), "part of a policy"),
        (tenacity.retry(stop=tenacity.stop_after_attempt(3))(lambda: None), "decorated function"),
        (Retrying, "it takes a tenacity.Retrying"),
    ],
)
def test_what_is_not_a_policy_is_refused(spec: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        policy(spec)


# What would be ignored


def ignore(*_: object) -> None:
    """Be a callback."""


class Refused(tenacity.RetryError):
    pass


@pytest.mark.parametrize(
    "ignored",
    [
        {"sleep": ignore},
        {"before": ignore},
        {"after": ignore},
        {"before_sleep": ignore},
        {"retry_error_callback": ignore},
        {"retry_error_cls": Refused},
        {"reraise": True},
    ],
)
def test_a_part_of_a_policy_that_would_be_ignored_is_refused_by_name(ignored: dict[str, Any]) -> None:
    (name,) = ignored
    with pytest.raises(ConfigError, match=rf"Retrying\({name}=…\) would be ignored"):
        policy(Retrying(stop=tenacity.stop_after_attempt(3), **ignored))


def test_a_policy_with_a_loop_of_its_own_is_refused() -> None:
    class Own(Retrying):
        def iter(self, retry_state: RetryCallState) -> Any:
            return super().iter(retry_state)

    with pytest.raises(ConfigError, match="its own 'iter' would be ignored"):
        policy(Own(stop=tenacity.stop_after_attempt(3)))


def test_a_subclass_that_only_sets_its_parts_is_a_policy() -> None:
    class Ours(Retrying):
        def __init__(self) -> None:
            super().__init__(stop=tenacity.stop_after_attempt(2), wait=tenacity.wait_fixed(7))

    assert waits(policy(Ours())) == [7]


def test_a_policy_that_is_not_enabled_never_retries() -> None:
    assert waits(policy(Retrying(wait=tenacity.wait_fixed(1), enabled=False))) == []


@pytest.mark.parametrize(
    "wait",
    [
        tenacity.wait_none(),
        tenacity.wait_fixed(0),
        tenacity.wait_fixed(timedelta(0)),
        tenacity.wait_none() + tenacity.wait_none(),
        tenacity.wait_none() + tenacity.wait_fixed(0) + tenacity.wait_random(0, 0),
        tenacity.wait_chain(tenacity.wait_none(), tenacity.wait_fixed(0)),
        tenacity.wait_chain(tenacity.wait_fixed(5), tenacity.wait_none()),
        tenacity.wait_combine(),
        tenacity.wait_random(0, 0),
        tenacity.wait_incrementing(0, 0),
        tenacity.wait_incrementing(start=60, increment=-10),
        tenacity.wait_exponential(multiplier=0),
        tenacity.wait_exponential(max=0),
        tenacity.wait_random_exponential(max=0),
        tenacity.wait_exponential_jitter(max=0),
    ],
)
def test_for_ever_without_a_pause_is_refused(wait: Any) -> None:
    with pytest.raises(ConfigError, match="never stops and retries without a pause"):
        policy(Retrying(wait=wait))


@pytest.mark.parametrize(
    "stop",
    [
        tenacity.stop_any(tenacity.stop_never, tenacity.stop_never),
        tenacity.stop_all(tenacity.stop_never, tenacity.stop_after_attempt(3)),
        tenacity.stop_after_delay(math.inf),
    ],
)
def test_what_stops_never_is_seen_in_each_of_its_forms(stop: Any) -> None:
    with pytest.raises(ConfigError, match="never stops and retries without a pause"):
        policy(Retrying(stop=stop))
    policy(Retrying(stop=stop | tenacity.stop_after_attempt(3)))


@pytest.mark.parametrize(
    "wait",
    [
        tenacity.wait_none() + tenacity.wait_fixed(1),
        tenacity.wait_chain(tenacity.wait_none(), tenacity.wait_fixed(1)),
        tenacity.wait_random(0, 1),
        tenacity.wait_incrementing(),
        tenacity.wait_exponential(),
        tenacity.wait_random_exponential(),
        tenacity.wait_exponential_jitter(),
        tenacity.wait_exception(lambda _: 1.0),
        lambda _: 0,
    ],
)
def test_for_ever_with_any_pause_or_with_a_wait_of_ones_own_is_a_policy(wait: Any) -> None:
    policy(Retrying(wait=wait))


def test_for_ever_with_a_wait_and_a_few_times_without_one_are_policies() -> None:
    assert policy(Retrying(wait=tenacity.wait_fixed(1))).decide(ERROR, run(10_000)) == 1
    assert waits(policy(Retrying(stop=tenacity.stop_after_attempt(4)))) == [0, 0, 0]


async def asked_in_vain(_: RetryCallState) -> bool:
    await asyncio.sleep(0)
    return True


class AskedInVain:
    async def __call__(self, _: RetryCallState) -> bool:
        return await asked_in_vain(_)


@pytest.mark.parametrize("part", ["retry", "wait", "stop"])
@pytest.mark.parametrize("asynchronous", [asked_in_vain, AskedInVain()])
def test_a_part_that_would_have_to_be_awaited_is_refused(part: str, asynchronous: Any) -> None:
    with pytest.raises(ConfigError, match=rf"{part}=.* is asynchronous"):
        policy(Retrying(**{part: asynchronous}))


@pytest.mark.parametrize(
    "parts", [{"stop": tenacity.stop_after_attempt}, {"wait": tenacity.wait_none}, {"stop": 3}, {"retry": OSError}]
)
def test_a_part_that_is_not_a_strategy_is_refused(parts: dict[str, Any]) -> None:
    (name,) = parts
    with pytest.raises(ConfigError, match=rf"{name}=.*give an instance, such as those in tenacity\.{name}"):
        policy(Retrying(**parts))
