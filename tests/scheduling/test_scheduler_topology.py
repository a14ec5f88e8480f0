"""The exchange and queue of a scheduler on a real broker: declared, checked, and who may use them."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pika.exceptions import ChannelClosedByBroker

from amqpworker.routing.topology import scheduler
from tests.cli import Ended, environment, run_here, started
from tests.docs import ROOT, table
from tests.support import Broker, raw_channel, raw_publish, wait_until

APP = """
from amqpworker import App
app = App()
task = app.task(name="shop.tick", queue="emails")(lambda: None)
task.schedule("often", every=1, jitter=0.1)()
task.schedule("paused", every=1)()
"""
QUEUE = "amqpworker.schedule.main"


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], vhost: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Ended]:
    """Run the program in a folder that has a module `plainshop` with an app."""
    (tmp_path / "plainshop.py").write_text(APP)
    monkeypatch.delitem(sys.modules, "plainshop", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("AMQPWORKER_URL", vhost.url)
    return lambda line: run_here(capsys, *line.split())


def declared_without_single_active_consumer(vhost: Broker) -> None:
    (queue,) = scheduler("amqpworker", "main").queues
    arguments = {name: value for name, value in queue.arguments.items() if name != "x-single-active-consumer"}
    vhost.management.declare_queue(vhost.vhost, QUEUE, arguments)
    with raw_channel(vhost.url) as channel:
        channel.queue_bind(QUEUE, "amqpworker.schedule", "main")


def test_the_scheduler_is_declared_if_it_is_named_and_then_as_it_should_be(
    cli: Callable[[str], Ended], vhost: Broker
) -> None:
    command = "topology declare plainshop:app --scheduler main"
    assert cli(command) == cli(command) == Ended(0, "37 exchanges, 37 queues, 39 bindings: declared.\n", "")
    assert cli(f"topology check plainshop:app --scheduler main --management {vhost.node.management_url}").code == 0
    missing = cli("topology check plainshop:app --scheduler other --json")
    assert missing.code == 1
    assert [(one["kind"], one["name"]) for one in missing.json["findings"]] == [
        ("missing", "amqpworker.schedule.other")
    ]


def test_a_queue_without_a_single_active_consumer_is_one_finding(cli: Callable[[str], Ended], vhost: Broker) -> None:
    cli("topology declare plainshop:app --scheduler other")
    declared_without_single_active_consumer(vhost)
    command = f"topology check plainshop:app --scheduler main --management {vhost.node.management_url} --json"
    (found,) = cli(command).json["findings"]
    assert (found["kind"], found["name"]) == ("differs", QUEUE)
    assert "x-single-active-consumer" in found["text"]
    ended = cli("topology declare plainshop:app --scheduler main")
    assert ended.code == 2
    assert "x-single-active-consumer" in ended.complaint()


def test_the_queue_cannot_be_read_by_basic_get(cli: Callable[[str], Ended], vhost: Broker) -> None:
    cli("topology declare plainshop:app --scheduler main")
    vhost.publish("amqpworker.schedule", "main", b"{}")
    with raw_channel(vhost.url) as channel, pytest.raises(ChannelClosedByBroker) as caught:
        channel.basic_get(QUEUE)
    assert caught.value.reply_code == 405
    assert vhost.count(QUEUE) == 1


# ---- while a leader runs ---------------------------------------------------------------------------------------------


@contextmanager
def scheduler_process(url: str, **env: str) -> Iterator[None]:
    """Run a scheduler of the app for the time of a block."""
    with started(Path.cwd(), environment(url, **env), "scheduler", "plainshop:app") as process:
        yield
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_a_purge_or_deletion_of_the_queue_loses_no_pause_while_a_leader_runs(
    cli: Callable[[str], Ended], vhost: Broker
) -> None:
    def paused() -> dict[str, bool] | None:
        listed = cli("schedule list --json --app plainshop:app")
        return {one["name"]: one["paused"] is not None for one in listed.json} if listed.code == 0 else None

    cli("topology declare plainshop:app")
    with scheduler_process(vhost.url):
        assert wait_until(paused, 30, what="a leader") == {"often": False, "paused": False}
        assert cli("schedule pause paused --app plainshop:app").code == 0
        with raw_channel(vhost.url) as channel:
            channel.queue_purge(QUEUE)
        assert paused() == {"often": False, "paused": True}
        vhost.delete_queue(QUEUE)
        assert wait_until(paused, 30, what="a leader again") == {"often": False, "paused": True}
        seen = vhost.count("emails")
        wait_until(lambda: vhost.count("emails") > seen, 30, what="another tick")


# ---- permissions ---------------------------------------------------------------------------------------------------


def permissions_of(user: str) -> dict[str, str]:
    """Return the permissions of a user as the page about topology lists them."""
    page = (ROOT / "docs/topology.md").read_text()
    (row,) = [row for row in table(page.replace(r"\|", "¦"), "| user | configure | write | read |") if row[0] == user]
    return dict(
        zip(("configure", "write", "read"), (cell.strip("`").replace("¦", "|") for cell in row[1:]), strict=True)
    )


def refused() -> Any:
    """Expect that the broker refuses what is done in the block."""
    return pytest.raises(ChannelClosedByBroker, match="403")


def test_a_scheduler_with_the_listed_permissions_sends_ticks_and_replies(
    cli: Callable[[str], Ended], vhost: Broker, stranger: Callable[..., str]
) -> None:
    cli("topology declare plainshop:app --scheduler main --scheduler other")
    url = stranger(**permissions_of("scheduler `main`"))
    with scheduler_process(url, AMQPWORKER_DECLARE="0"):
        wait_until(lambda: cli("schedule list --app plainshop:app").code == 0, 30, what="a leader that replies")
        vhost.wait_for_message("emails", 30)
    for queue in ("amqpworker.schedule.other", "emails"):
        with raw_channel(url) as channel, refused():
            channel.basic_consume(queue, print)


def test_the_listed_permissions_of_who_commands_a_scheduler_do_not_read_its_queue(
    cli: Callable[[str], Ended], vhost: Broker, stranger: Callable[..., str]
) -> None:
    cli("topology declare plainshop:app --scheduler main")
    url = stranger(**permissions_of("operator, for `amqpworker schedule`"))
    assert raw_publish(url, "amqpworker.schedule", "main", b"{}")
    assert raw_publish(url, "amqpworker.tasks", "emails", b"{}")
    with refused():
        raw_publish(url, "amqpworker.delay.30", "emails", b"{}")
    with raw_channel(url) as channel, refused():
        channel.basic_consume(QUEUE, print)
