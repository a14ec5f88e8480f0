"""The producers' soak: a web service and a process of many threads send on while their broker restarts, and see no error."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from amqpworker.testing import processes
from tests.acceptance.conftest import MakeScene
from tests.acceptance.oracle import DEAD, PARKED, balance
from tests.acceptance.scene import QUEUE, Scene
from tests.conftest import quicken
from tests.long.conftest import SECONDS, TIMEOUT, tell
from tests.long.faults import frozen
from tests.long.visitors import Visitors
from tests.nodes import Node
from tests.support import wait_until

PROCESSES, THREADS = 3, 8
VISITORS = 16
MANY = 50
PAUSE = 0.1
HANGS = 0.5
BACK = 60.0


@pytest.mark.timeout(TIMEOUT)
def test_no_send_fails_under_gunicorn_and_from_fifty_threads_while_the_broker_restarts(
    own_node: Node, make_scene: MakeScene
) -> None:
    scene = make_scene(own_node)
    scene.pool("-p", "2", "-t", "8")
    scene.sender("load", "--threads", str(MANY), "--only", "plain", "--pause", str(PAUSE))
    with Visitors(serve(scene), VISITORS, PAUSE) as visitors:
        scene.wait_until(lambda: visitors.answers["200"] >= VISITORS, 30, "the service answers")
        scene.wait_for("end", MANY)
        away = restart(scene, own_node)
    scene.stop_all("gunicorn")
    scene.stop_all("sender")
    result = balance(scene, timeout=120)
    scene.stop_all("pool")
    failed = scene.events("refused", "unknown")
    left = {queue: scene.broker.count(queue) for queue in (QUEUE, DEAD, PARKED)}
    absences = f"{len(away)} restarts, away for {min(away):.1f} to {max(away):.1f} s"
    tell(
        "restarts",
        f"{len(result.confirmed):,}",
        absences,
        f"failed {len(failed)}, answers {dict(visitors.answers)}, {result}",
    )
    kinds = Counter(line["why"].partition("(")[0] for line in failed)
    assert not failed, f"{absences}: {len(failed)} of {len(result.tries)} sends failed: {dict(kinds)}, {failed[0]}"
    assert set(visitors.answers) == {"200"}, visitors.answers
    result.check("restarts under gunicorn and 50 threads")
    assert result.ends.keys() == result.confirmed == result.tries.keys()
    assert set(left.values()) <= {0, -1}, left
    assert not scene.living()
    assert [log for log in ("sender", "gunicorn", "pool") if "Traceback" in scene.said(log, 10**8)] == []


def serve(scene: Scene) -> int:
    """Start gunicorn and return its port once it listens."""
    (port,) = processes.free_ports(1)
    options = ("--workers", str(PROCESSES), "--threads", str(THREADS), "--timeout", "60", "--no-control-socket")
    scene.start("gunicorn", *options, "--bind", f"127.0.0.1:{port}", "web:application", log="gunicorn")
    wait_until(lambda: not processes.is_free(port), 30, "gunicorn listens")
    return port


def restart(scene: Scene, node: Node) -> list[float]:
    """Stop the broker and kill it, in turns, at least once each; return for how long it was away each time."""
    end = time.monotonic() + SECONDS
    away: list[float] = []
    while not away or time.monotonic() < end:
        for how, leave in (("stopped", node.stop), ("killed", lambda: kill(node))):
            began = scene.fault(f"broker {how}")
            leave()
            node.start()
            back = scene.fault("broker back")
            away.append(back - began)
            quicken(node)
            scene.wait_until(lambda back=back: senders_since(scene, back), BACK, "each process sends again")  # type: ignore[misc]
            scene.wait_for("end", MANY, back, BACK)
    return away


def kill(node: Node) -> None:
    """Kill the broker when it owes a confirm to every thread: a broker that hangs, and dies of it."""
    with frozen(node.pid):
        time.sleep(HANGS)
        node.kill()


def senders_since(scene: Scene, since: float) -> bool:
    """Return whether every process that ever sent has had a confirm since then."""
    confirmed = scene.events("confirmed")
    return {line["pid"] for line in confirmed} == {line["pid"] for line in confirmed if line["at"] >= since}
