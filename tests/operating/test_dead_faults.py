"""A broker that restarts, or is killed, in the middle of a replay: each letter is in one place, or doubled under its id."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pika
import pytest

from amqpworker import App
from tests.cli import environment, started
from tests.support import Broker, raw_channel, wait_until
from tests.workers import running

WORK, DEAD, COUNT = "billing", "billing.dead", 4000


@pytest.mark.parametrize("how", ["restarted", "killed"])
def test_a_broker_that_goes_away_in_the_middle_of_a_replay_loses_no_letter(
    spare_vhost: Broker, tmp_path: Path, how: str
) -> None:
    broker, node = spare_vhost, spare_vhost.node
    with App(broker.url) as app:
        app.queue(WORK)

        @app.task(name="note", queue=WORK)
        def note() -> None: ...

        with running(app, threads=1):
            pass  # declares the topology
    ids = [f"id-{number}" for number in range(COUNT)]
    with raw_channel(broker.url) as channel:
        for one in ids:
            properties = pika.BasicProperties(message_id=one, headers={"aw-dead-reason": "failed"}, delivery_mode=2)
            channel.basic_publish("amqpworker.dead", WORK, b"{}", properties)
        broker.wait_for_count(DEAD, COUNT)
    node.save_queues()
    line = ("dead", "replay", "--all", "--yes", "-q", WORK, "--rate", "1500")
    with started(tmp_path, environment(broker.url), *line) as process:
        wait_until(lambda: broker.count(WORK) >= 500, 30, "some are replayed")
        (node.stop if how == "restarted" else node.kill)()
        node.start()
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2, err
    assert "Stopped: " in err
    # The broker reports zeros until a queue has a leader again.
    wait_until(lambda: broker.count(WORK) + broker.count(DEAD) >= COUNT, 30, "all letters are in a queue")
    moved, rest = broker.drain(WORK), broker.drain(DEAD)
    found = Counter([*moved, *rest])
    assert found.keys() == set(ids)
    assert max(found.values()) <= 2
    assert len(moved) + len(rest) - COUNT <= 500
