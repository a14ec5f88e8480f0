"""The options of a worker: what they accept, and their defaults."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from amqpworker.worker.options import WorkerOptions


def options(**given: object) -> WorkerOptions:
    return WorkerOptions.model_validate({"app": "shop:app", **given})


def test_four_messages_are_prefetched_for_each_thread() -> None:
    assert options().prefetch_for("emails", has_coroutines=False) == 32
    assert options(threads=1).prefetch_for("emails", has_coroutines=False) == 4


def test_prefetch_counts_coroutines_like_threads() -> None:
    assert options(threads=8, async_tasks=100).prefetch_for("emails", has_coroutines=True) == 432


def test_a_prefetch_that_was_given_is_used() -> None:
    assert options(prefetch=1, threads=8).prefetch_for("emails", has_coroutines=True) == 1


def test_a_prefetch_is_never_larger_than_amqp_can_carry() -> None:
    assert options(threads=10_000, async_tasks=65_535).prefetch_for("emails", has_coroutines=True) == 65_535


def test_by_default_as_many_suspects_run_at_once_as_there_are_threads_and_at_most_four() -> None:
    assert options().suspects == 4
    assert options(threads=2).suspects == 2
    queues = ({"name": "a", "threads": 1}, {"name": "b", "threads": 2})
    assert options(queues=queues).suspects == 3
    assert options(max_suspects=1).suspects == 1
    assert options(max_suspects=16, threads=32).suspects == 16


@pytest.mark.parametrize(
    "given",
    [
        {"threads": 0},
        {"threads": -1},
        {"threads": 10_001},
        {"prefetch": 0},
        {"prefetch": 65_536},
        {"async_tasks": 0},
        {"max_suspects": 0},
        {"max_suspects": 10_001},
        {"drain_timeout": -1},
        {"start_timeout": math.inf},
        {"stall_timeout": math.inf},
        {"stall_timeout": 0.5},
        {"processes": 0},
        {"name": "mail"},
        {"queues": ("a", "b", "a")},
        {"queues": ("",)},
        {"queues": ({"name": "a", "threads": 0},)},
        {"queues": ({"name": "a", "prefetch": 65_536},)},
        {"queues": ({"name": "a", "limit": 1},)},
        {"queues": ({"name": "a", "threads": 6000}, {"name": "b", "threads": 6000})},
    ],
    ids=repr,
)
def test_wrong_values_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        options(**given)


def test_options_reach_a_child_as_they_were() -> None:
    given = options(
        queues=("a", {"name": "b", "threads": 2, "prefetch": 1}), prefetch=5, drain_timeout=0.5, log_json=True
    )
    assert WorkerOptions.model_validate_json(given.model_dump_json()) == given


@pytest.mark.parametrize(
    ("queues", "shared", "own"),
    [
        ((), 8, {}),
        (("a", "b"), 8, {}),
        (("a", {"name": "b", "threads": 2}), 8, {"b": 2}),
        (({"name": "a", "threads": 3}, {"name": "b", "threads": 2}), 0, {"a": 3, "b": 2}),
        # It shares with no other queue, so its deliveries need no line of their own.
        (({"name": "a", "threads": 3},), 3, {}),
    ],
    ids=repr,
)
def test_queues_without_a_number_of_threads_share_those_of_the_process(
    queues: tuple[object, ...], shared: int, own: dict[str, int]
) -> None:
    given = options(threads=8, async_tasks=5, queues=queues)
    assert (given.shared_threads, given.own_threads) == (shared, own)
    assert given.slots == shared + sum(own.values()) + 5


def test_the_prefetch_of_a_queue_follows_its_own_threads_unless_it_is_given() -> None:
    queues = ("emails", {"name": "reports", "threads": 2}, {"name": "jobs", "threads": 2, "prefetch": 3})
    given = options(threads=8, queues=queues)
    assert [given.prefetch_for(name, False) for name in ("emails", "reports", "jobs")] == [32, 8, 3]
    given = options(threads=8, queues=queues, prefetch=5)
    assert [given.prefetch_for(name, False) for name in ("emails", "reports", "jobs")] == [5, 5, 3]
