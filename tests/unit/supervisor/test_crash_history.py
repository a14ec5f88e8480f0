"""Which messages are suspected: those that ran in a process that died, reported as soon as that is known."""

from __future__ import annotations

from amqpworker.ipc.pipes import SuspectAnswer
from amqpworker.ipc.recorder import Counts, Recording, Running
from amqpworker.supervisor.crash_history import MAX_QUERIES, MAX_SUSPECTS, CrashHistory


def recording(*keys: str, moved: float = 100.0) -> Recording:
    running = tuple(Running(slot, key, "shop.task", 1, 0.0, 0.0) for slot, key in enumerate(keys))
    return Recording((moved, moved, 0.0, 0.0), Counts(), running)


def test_what_ran_in_a_dead_process_is_suspected_and_nothing_else() -> None:
    history = CrashHistory()
    history.record_death(recording("a", "b"))
    history.add_queries(1, ("a", "b", "c"), 100.0)
    history.add_queries(2, ("b",), 100.0)
    assert history.answers({1: recording(), 2: recording()}, 100.0) == [
        (1, SuspectAnswer(("a", "b"), suspect=True)),
        (1, SuspectAnswer(("c",), suspect=False)),
        (2, SuspectAnswer(("b",), suspect=True)),
    ]
    assert not history.has_queries


def test_a_process_that_seems_to_live_is_waited_for_and_its_death_is_the_answer() -> None:
    history = CrashHistory()
    history.add_queries(1, ("a",), 100.0)
    assert history.answers({1: recording(), 2: recording("a")}, 100.1) == []
    assert history.has_queries
    history.record_death(recording("a"))
    assert history.answers({1: recording()}, 100.2) == [(1, SuspectAnswer(("a",), suspect=True))]


def test_a_process_that_lives_on_has_lost_its_connection_only() -> None:
    history = CrashHistory()
    history.add_queries(1, ("a",), 100.0)
    moves = recording("a", moved=101.0)
    assert history.answers({1: recording(), 2: moves}, 100.9) == []
    assert history.answers({1: recording(), 2: moves}, 101.1) == [(1, SuspectAnswer(("a",), suspect=False))]


def test_a_process_that_does_not_move_is_as_good_as_dead() -> None:
    history = CrashHistory()
    history.add_queries(1, ("a",), 100.0)
    assert history.answers({1: recording(), 2: recording("a", moved=90.0)}, 101.1) == [
        (1, SuspectAnswer(("a",), suspect=True))
    ]
    history.add_queries(1, ("b",), 100.0)
    assert history.answers({1: recording(), 2: None}, 101.1) == [(1, SuspectAnswer(("b",), suspect=False))]


def test_a_process_that_asks_while_it_runs_the_message_is_answered_at_once() -> None:
    history = CrashHistory()
    history.add_queries(1, ("a",), 100.0)
    assert history.answers({1: recording("a")}, 100.0) == [(1, SuspectAnswer(("a",), suspect=False))]


def test_a_process_that_is_gone_is_not_answered() -> None:
    history = CrashHistory()
    history.add_queries(1, ("a",), 100.0)
    assert history.answers({2: recording()}, 100.0) == []
    assert not history.has_queries


def test_a_process_without_a_recording_leaves_no_suspects() -> None:
    history = CrashHistory()
    history.record_death(None)
    history.add_queries(1, ("a",), 100.0)
    assert history.answers({1: None}, 100.0) == [(1, SuspectAnswer(("a",), suspect=False))]


def test_the_oldest_suspects_are_forgotten_if_there_are_too_many() -> None:
    history = CrashHistory()
    history.record_death(recording("first", "again"))
    history.record_death(recording(*(f"k{number}" for number in range(MAX_SUSPECTS - 1))))
    history.record_death(recording("again"))
    history.add_queries(1, ("first", "again", "k5"), 100.0)
    assert history.answers({1: recording()}, 100.0) == [
        (1, SuspectAnswer(("first",), suspect=False)),
        (1, SuspectAnswer(("again", "k5"), suspect=True)),
    ]


def test_a_process_that_floods_us_with_questions_is_not_kept_in_memory() -> None:
    history = CrashHistory()
    for _ in range(2):
        history.add_queries(1, [str(number) for number in range(MAX_QUERIES - 5)], 100.0)
    ((_, answer),) = history.answers({1: recording()}, 100.0)
    assert len(answer.keys) == MAX_QUERIES


def test_a_message_whose_last_run_has_left_processes_is_answered_once_they_have_ended() -> None:
    history = CrashHistory()
    history.record_death(recording("a", "b"))
    history.add_queries(1, ("a", "b"), 100.0)
    assert history.answers({1: recording()}, 105.0, blocked={"a"}) == [(1, SuspectAnswer(("b",), suspect=True))]
    assert history.has_queries
    assert history.answers({1: recording()}, 106.0) == [(1, SuspectAnswer(("a",), suspect=True))]
