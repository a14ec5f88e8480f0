"""A worker process that is killed at any step of the settle path loses nothing that was confirmed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from amqpworker.results.store import open_store
from tests.acceptance.conftest import MakeScene
from tests.acceptance.oracle import Balance, balances
from tests.acceptance.scene import Scene
from tests.nodes import Node

# What is in one group is tried at the same time.
POINTS = (
    ("before the run", "in the run", "after the run", "before the ack", "after the ack"),
    ("result not stored", "result stored", "reply sent"),
    ("copy not sent", "copy written", "copy unheard", "copy confirmed"),
    ("letter not sent", "letter written", "letter unheard", "letter confirmed"),
)
KILLS = 3
COUNT = 160


@pytest.mark.parametrize("points", POINTS, ids=", ".join)
def test_nothing_confirmed_is_lost_when_workers_are_killed(
    node: Node, make_scene: MakeScene, points: tuple[str, ...]
) -> None:
    scenes = {point: make_scene(node, results=True) for point in points}
    # Letters are few in the usual mix, and several go in one write.
    few = {point: ("--only", "doomed") for point in points if point.startswith("letter")}
    senders = {
        point: scene.sender("batch", "--count", str(COUNT), *few.get(point, ())) for point, scene in scenes.items()
    }
    for point, scene in scenes.items():
        assert senders[point].wait(60) == 0, scene.said("sender")
        if point == "reply sent":
            scene.sender("load", "--threads", "0", "--callers", "4")
        scene.pool(kill_at=point, kills=KILLS, kill_by="2" if point in few else "8")
    for scene in scenes.values():
        scene.wait_for("killed", KILLS, timeout=60)
        scene.stop_all("sender")
    for point, result in balances(scenes).items():
        result.check(f"worker killed, {point}")
        assert len(result.killed) == KILLS
        assert len(result.confirmed) == len(result.tries) == COUNT
        check_results(scenes[point], result)
        scenes[point].stop_all("pool")


def check_results(scene: Scene, result: Balance) -> None:
    """Every task that was confirmed has its result in the store, the failed ones too."""
    store = open_store(scene.results_url, "amqpworker")
    stored = set(store.get(result.tries))
    store.close()
    assert stored == result.confirmed


@dataclass(frozen=True)
class Expected:
    """How often each attempt of one message runs, and how many dead letters there are."""

    kind: str
    runs: dict[int, set[int]]
    letters: set[int]


ONE = {
    "before the run": Expected("plain", {1: {1}}, {0}),
    "in the run": Expected("plain", {1: {2}}, {0}),
    "after the run": Expected("plain", {1: {2}}, {0}),
    "result not stored": Expected("plain", {1: {2}}, {0}),
    "result stored": Expected("plain", {1: {2}}, {0}),
    "before the ack": Expected("plain", {1: {2}}, {0}),
    "after the ack": Expected("plain", {1: {1}}, {0}),
    "copy not sent": Expected("flaky", {1: {2}, 2: {1}}, {0}),
    "copy written": Expected("flaky", {1: {2}, 2: {1, 2}}, {0}),
    "copy unheard": Expected("flaky", {1: {2}, 2: {2}}, {0}),
    "copy confirmed": Expected("flaky", {1: {2}, 2: {2}}, {0}),
    "letter not sent": Expected("doomed", {1: {1}, 2: {1}, 3: {2}}, {1}),
    "letter written": Expected("doomed", {1: {1}, 2: {1}, 3: {2}}, {1, 2}),
    "letter unheard": Expected("doomed", {1: {1}, 2: {1}, 3: {2}}, {2}),
    "letter confirmed": Expected("doomed", {1: {1}, 2: {1}, 3: {2}}, {2}),
}


def test_one_message_runs_again_only_where_the_guarantees_allow_it(node: Node, make_scene: MakeScene) -> None:
    scenes = {point: make_scene(node, results=True) for point in ONE}
    senders = {
        point: scene.sender("batch", "--count", "1", "--only", ONE[point].kind) for point, scene in scenes.items()
    }
    for point, scene in scenes.items():
        assert senders[point].wait(60) == 0, scene.said("sender")
        scene.pool("-p", "1", "-t", "1", "--prefetch", "1", kill_at=point, kills=1, kill_by="1")
    for scene in scenes.values():
        scene.wait_for("killed", 1, timeout=60)
    for point, result in balances(scenes).items():
        expected = ONE[point]
        result.check(f"one message, {point}")
        runs = Counter({attempt: len(lines) for (_, attempt), lines in result.runs.items()})
        letters = sum(len(found) for found in result.dead.values())
        assert all(runs[attempt] in counts for attempt, counts in expected.runs.items()), (point, runs)
        assert runs.keys() == expected.runs.keys(), (point, runs)
        assert letters in expected.letters, (point, letters)
        assert next(iter(result.dead or result.ends)) in result.confirmed
