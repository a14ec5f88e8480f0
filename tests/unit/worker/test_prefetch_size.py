"""How many messages of a queue a process holds, by how long its tasks have run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.worker.prefetch_size import LONGEST_RUN, Places, Work, fitting_prefetch

FOUR = Places(threads=4)
MIXED = Places(threads=4, coroutines=100)


def runs(count: int, seconds: float, is_coroutine: bool = False) -> Work:
    work = Work()
    for _ in range(count):
        work = work.plus(seconds, is_coroutine)
    return work


def settled(work: Work, places: Places, present: int) -> int:
    """Return the prefetch once it does not change any more."""
    while (following := fitting_prefetch(work, places, present)) != present:
        present = following
    return present


@pytest.mark.parametrize(
    ("seconds", "prefetch"),
    [
        (60, 4),
        (2.6, 4),
        (1.001, 4),  # less than one of them would wait
        (0.5, 6),
        (0.25, 8),
        (0.1, 14),
        (0.01, 104),
        (0.002, 504),
        (0.001, 512),
        (0.000_001, 512),
        (0, 512),
    ],
)
def test_what_waits_is_a_quarter_of_a_second_of_work(seconds: float, prefetch: int) -> None:
    assert settled(runs(100, seconds), FOUR, 4) == prefetch


def test_each_thread_has_one_and_nothing_waits_behind_tasks_of_an_hour() -> None:
    assert settled(runs(8, 3600), Places(1), 1) == 1
    assert settled(runs(8, 3600), Places(1), 512) == 1
    assert settled(runs(1000, 3600), Places(600), 600) == 600, "also above the bound for what waits"


@pytest.mark.parametrize(("seconds", "prefetch"), [(5, 105), (0.5, 150), (0.05, 512)])
def test_coroutines_are_held_as_many_as_run_at_once(seconds: float, prefetch: int) -> None:
    assert settled(runs(1000, seconds, is_coroutine=True), MIXED, 4) == prefetch


def test_the_bound_does_not_keep_places_in_the_event_loop_empty() -> None:
    assert settled(runs(1000, 5, is_coroutine=True), Places(4, 2000), 4) == 2004


def test_an_async_task_beside_slow_ones_does_not_have_a_hundred_of_these_wait() -> None:
    """The threads limit the rate at which a mixture of both passes: with that, few coroutines run."""
    half = runs(100, 2.6).plus(0, False)
    both = Work(half.runs + 100, half.in_threads, runs(100, 2.6, is_coroutine=True).in_event_loop)
    assert settled(both, MIXED, 4) == 8
    fast = Work(half.runs + 100, half.in_threads, runs(100, 0.001, is_coroutine=True).in_event_loop)
    assert settled(fast, MIXED, 4) == 4


def test_a_number_that_differs_little_is_left() -> None:
    work = runs(100, 0.1)
    assert fitting_prefetch(work, FOUR, 14) == 14
    assert fitting_prefetch(work, FOUR, 12) == 12
    assert fitting_prefetch(work, FOUR, 18) == 18
    assert fitting_prefetch(work, FOUR, 19) == 14
    assert fitting_prefetch(work, FOUR, 11) == 14


def test_the_last_ones_that_wait_go_even_if_they_are_few() -> None:
    assert fitting_prefetch(runs(100, 5), Places(8), 9) == 8


def test_a_number_does_not_grow_beyond_eight_times_the_runs_that_were_measured() -> None:
    assert fitting_prefetch(runs(10, 0), FOUR, 4) == 80
    assert fitting_prefetch(runs(64, 0), FOUR, 4) == 512
    assert fitting_prefetch(runs(10, 0), FOUR, 512) == 512, "nor does it shrink for that"
    assert fitting_prefetch(runs(10, 5), FOUR, 512) == 4


def test_few_runs_are_not_enough() -> None:
    assert not runs(7, 1).is_enough(Places(1))
    assert runs(8, 1).is_enough(Places(1))
    assert not runs(8, 1).is_enough(Places(9))


def test_a_clock_that_is_set_does_not_count_for_long() -> None:
    assert runs(1, -5) == Work(1, 0, 0)
    assert runs(1, 1e9) == Work(1, LONGEST_RUN, 0)


def test_work_of_long_ago_counts_less() -> None:
    work = runs(1000, 0.001)
    for _ in range(10):
        work = work.halved()
        work = Work(work.runs + 8, work.in_threads + 8 * 5, 0)
    assert settled(work, FOUR, 512) == 4


@given(
    st.floats(1, 1e6),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.integers(1, 10_000),
    st.integers(0, 65_535),
    st.integers(1, 65_535),
)
def test_it_is_never_below_the_threads_nor_above_what_is_useful(
    count: float, in_threads: float, in_event_loop: float, threads: int, coroutines: int, present: int
) -> None:
    places = Places(threads, coroutines)
    found = fitting_prefetch(Work(count, in_threads, in_event_loop), places, present)
    assert found == present or threads <= found <= max(512, threads + coroutines)


def test_at_first_a_process_holds_a_message_for_each_thread_or_for_each_coroutine_if_there_are_only_these() -> None:
    assert Places(4, 100).first_prefetch == 4
    assert Places(4, 100, only_coroutines=True).first_prefetch == 100
    assert Places(8, 2, only_coroutines=True).first_prefetch == 8
