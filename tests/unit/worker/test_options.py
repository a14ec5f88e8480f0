"""The options of a worker: what they accept, and their defaults."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from amqpworker.worker.options import WorkerOptions


def options(**given: object) -> WorkerOptions:
    return WorkerOptions.model_validate({"app": "shop:app", **given})


def test_the_prefetch_is_adapted_by_default_and_a_number_means_that_number() -> None:
    assert options().prefetch_for("emails") == "auto"
    assert options(prefetch=1, threads=8).prefetch_for("emails") == 1
    assert options(prefetch="64").prefetch_for("emails") == 64, "the command line gives text"


@pytest.mark.parametrize("given", [0, 65_536, "0", "65536", "auto8", "", "-1", 8.0, True, "٣"])
def test_a_prefetch_that_is_not_one_is_refused_with_what_it_may_be(given: object) -> None:
    for options_given in ({"prefetch": given}, {"queues": ({"name": "a", "prefetch": given},)}):
        with pytest.raises(
            ValidationError, match=r"1 validation error.*\n.*\n.*'auto' or a number from 1 to 65535, got"
        ):
            options(**options_given)


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
        queues=("a", {"name": "b", "threads": 2, "prefetch": 1}, {"name": "c", "prefetch": "auto"}),
        prefetch=5,
        drain_timeout=0.5,
        log_json=True,
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


def test_a_queue_may_have_a_prefetch_of_its_own_or_have_it_adapted() -> None:
    queues = ("emails", {"name": "reports", "prefetch": "auto"}, {"name": "jobs", "threads": 2, "prefetch": 3})
    given = options(queues=queues)
    assert [given.prefetch_for(name) for name in ("emails", "reports", "jobs")] == ["auto", "auto", 3]
    given = options(queues=queues, prefetch=5)
    assert [given.prefetch_for(name) for name in ("emails", "reports", "jobs")] == [5, "auto", 3]
