"""What waits in the delay ladder: listed, shown, cancelled and rescheduled, in Python and by the program."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pika
import pytest

from amqpworker import AccessRefused, App, InvalidArguments, Settings, TaskFailed
from amqpworker.broker import walk_consumers
from amqpworker.broker.queue_walk import QueueWalker
from amqpworker.cli import pending_command, pending_listing
from amqpworker.client import pending_walk
from amqpworker.model.pending_message import PendingMessage
from amqpworker.routing.topology import Names
from amqpworker.task import Task
from tests.cli import Ended, run_here
from tests.support import Broker, raw_channel, wait_until
from tests.workers import running

MODULE = """
from amqpworker import App
app = App()
@app.task(name="remind", queue="emails")
def remind(n: int) -> int:
    return n
"""


@pytest.fixture
def remind(app: App) -> Task[[int], int]:
    @app.task(name="remind", queue="emails")
    def remind(n: int) -> int:
        return n

    return remind


@pytest.fixture
def cli(
    vhost: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], Ended]:
    """Run `amqpworker pending …` against the test's virtual host."""
    (tmp_path / "pendshop.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pendshop", raising=False)
    monkeypatch.setenv("AMQPWORKER_URL", vhost.url)
    monkeypatch.setenv("AMQPWORKER_APP", "pendshop:app")
    return lambda line: run_here(capsys, "pending", *line.split())


def test_what_waits_is_listed_each_once_and_stays(app: App, remind: Task[[int], int], vhost: Broker) -> None:
    before = datetime.now(UTC)
    for number, delay in enumerate((100, 3600, 500_000)):
        remind.options(delay=delay, id=f"m-{number}").send(number)
    app.queue("reports")
    app.send(remind.options(delay=50, queue="reports", id="other").message(3))
    for _ in range(2):
        found = {one.id: one for one in app.pending.list()}
        assert sorted(found) == ["m-0", "m-1", "m-2", "other"]
    assert next(app.pending.list()).id == "m-2", "the longest waits first"
    one = found["m-1"]
    assert (one.task, one.queue, one.attempt, one.is_latest) == ("remind", "emails", 1, False)
    assert timedelta(seconds=3599) < one.due - before < timedelta(seconds=3610)
    assert one.message.body == b'{"n":1}'
    assert {one.id for one in app.pending.list(queue="reports")} == {"other"}
    assert {one.id for one in app.pending.list(task="remind", due_before=1000)} == {"m-0", "other"}
    assert {one.id for one in app.pending.list(due_before=before + timedelta(days=1))} == {"m-0", "m-1", "other"}
    assert list(app.pending.list(task="none")) == []
    shown = app.pending.show("m-2")
    assert shown is not None
    assert shown.message.properties.type == "remind"
    assert app.pending.show("none") is None
    with pytest.raises(InvalidArguments):
        app.pending.list(due_before=before.replace(tzinfo=None))


def test_nothing_is_pending_without_a_ladder(app: App) -> None:
    assert list(app.pending.list()) == []
    assert app.pending.show("m-1") is None
    assert app.pending.reschedule("m-1", delay=1) is False


def test_a_retry_and_a_message_that_moves_from_level_to_level_are_listed_once(
    app: App, remind: Task[[int], int], vhost: Broker
) -> None:
    @app.task(name="fail", queue="work", retry=[60])
    def fail() -> None:
        raise ValueError

    sent = fail.send()
    with running(app, threads=1):
        wait_until(lambda: app.pending.show(sent.id))
    retry = app.pending.show(sent.id)
    assert retry is not None
    assert retry.attempt == 2
    # 1.875 s are four levels, one after the other
    app.send_many(remind.options(delay=1.875, id=f"m-{number}").message(number) for number in range(200))
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        ids = [one.id for one in app.pending.list(task="remind")]
        assert len(ids) == len(set(ids))
    vhost.wait_for_count("emails", 200)


def test_a_message_that_is_removed_never_runs_and_its_sender_gets_cancelled(
    make_app: Callable[..., App], vhost: Broker, tmp_path: Path
) -> None:
    app = make_app(results=f"sqlite:///{tmp_path}/results.db")
    ran: list[int] = []

    @app.task(name="remind", queue="emails")
    def remind(n: int) -> None:
        ran.append(n)

    sent = [remind.options(delay=2, id=f"m-{number}").send(number) for number in range(4)]
    far = remind.options(delay=10_000_000, id="far").send(9)
    outcomes = app.pending.cancel("m-1", "m-3", "far", "none", "m-1")
    assert outcomes == {"m-1": "removed", "m-3": "removed", "far": "removed", "none": "announced"}
    for one in (sent[1], sent[3], far):
        with pytest.raises(TaskFailed) as failed:
            one.result(timeout=1)
        assert failed.value.reason == "cancelled"
    assert app.pending.cancel() == {}
    with running(app, threads=1):
        wait_until(lambda: len(ran) == 2)
    assert sorted(ran) == [0, 2]
    assert app.pending.show("far") is None


def test_a_message_is_rescheduled_to_another_time_or_to_now(app: App, remind: Task[[int], int], vhost: Broker) -> None:
    remind.options(delay=3600, id="m-1", headers={"tenant": "acme"}).send(1)
    remind.options(delay=3600, expires=7200, id="m-2").send(2)
    assert app.pending.reschedule("m-1", delay=100) is True
    found = app.pending.show("m-1")
    assert found is not None
    assert found.due < datetime.now(UTC) + timedelta(seconds=101)
    later = datetime.now(UTC) + timedelta(days=400)
    assert app.pending.reschedule("m-1", at=later) is True
    found = app.pending.show("m-1")
    assert found is not None
    assert abs(found.due - later) < timedelta(seconds=0.2)
    with pytest.raises(InvalidArguments, match="expires"):
        app.pending.reschedule("m-2", at=later)
    assert app.pending.reschedule("m-1", delay=0) is True
    message = vhost.wait_for_message("emails")
    assert message.properties.message_id == "m-1"
    assert message.headers["tenant"] == "acme"
    assert [one.id for one in app.pending.list()] == ["m-2"]
    assert app.pending.reschedule("m-1", delay=1) is False
    for wrong in ({}, {"delay": 1, "at": later}, {"delay": -1}):
        with pytest.raises(InvalidArguments):
            app.pending.reschedule("m-2", **wrong)  # type: ignore[arg-type]


def test_a_cancel_that_waits_in_the_ladder_itself_is_not_a_pending_message(
    app: App, remind: Task[[int], int], vhost: Broker
) -> None:
    sent = remind.options(delay=100_000, id="m-1").send(1)
    sent.cancel()
    assert [one.id for one in app.pending.list()] == ["m-1"]
    assert app.pending.cancel("m-1", due=datetime.now(UTC) + timedelta(days=300)) == {"m-1": "removed"}
    assert list(app.pending.list()) == []
    levels = sum(max(vhost.count(Names().level(number)), 0) for number in range(31))
    assert levels == 2, "the cancels are still there"


def test_walks_beside_senders_and_workers_lose_nothing(app: App, remind: Task[[int], int], vhost: Broker) -> None:
    ran: list[int] = []

    @app.task(name="count", queue="work")
    def count(n: int) -> None:
        ran.append(n)

    stop = threading.Event()

    def list_all() -> Iterator[int]:
        while not stop.is_set():
            yield len(list(app.pending.list()))

    lister = threading.Thread(target=lambda: list(list_all()))
    with running(app, threads=2):
        lister.start()
        try:
            app.send_many(count.options(delay=0.5 + number / 500).message(number) for number in range(500))
            wait_until(lambda: len(ran) >= 500, timeout=20)
        finally:
            stop.set()
            lister.join()
    assert sorted(ran) == list(range(500))


def test_two_messages_with_one_id_are_rescheduled_both_and_removed_both(
    app: App, remind: Task[[int], int], vhost: Broker
) -> None:
    """Ids are the users' own."""

    @app.task(name="other", queue="reports")
    def other(n: int) -> None: ...

    remind.options(delay=3600, id="one").send(1)
    other.options(delay=3600, id="one").send(2)
    remind.options(delay=500_000, id="one").send(3)
    assert app.pending.reschedule("one", delay=5000) is True
    found = sorted(one.message.body for one in app.pending.list())
    assert found == [b'{"n":1}', b'{"n":2}', b'{"n":3}']
    assert not [one for one in app.pending.list() if one.due > datetime.now(UTC) + timedelta(seconds=5001)]
    assert app.pending.reschedule("one", delay=0) is True
    vhost.wait_for_count("emails", 2)
    vhost.wait_for_count("reports", 1)
    assert list(app.pending.list()) == []


def test_each_copy_of_a_message_is_removed_and_one_of_them_is_rescheduled(
    app: App, remind: Task[[int], int], vhost: Broker
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=300)

    def send_twice() -> None:
        message = remind.options(at=soon, id="m-1").message(1)
        for _ in range(2):
            app.send(message)
        assert [one.id for one in app.pending.list()] == ["m-1"], "a list has it once"

    def count() -> int:
        return sum(max(vhost.count(Names().level(number)), 0) for number in range(31))

    send_twice()
    assert app.pending.cancel("m-1") == {"m-1": "removed"}
    assert count() == 0
    send_twice()
    assert app.pending.reschedule("m-1", delay=5000) is True
    wait_until(lambda: count() == 1)
    assert app.pending.reschedule("m-1", delay=60) is True
    wait_until(lambda: count() == 1)


def test_a_list_that_is_left_early_leaves_the_order_of_its_level(
    app: App, remind: Task[[int], int], cli: Callable[[str], Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk_consumers, "PORTION", 2)
    for number in range(9):
        remind.options(delay=3600, id=f"m-{number}").send(number)
    order = [one.id for one in app.pending.list()]

    def interrupted(messages: Iterator[PendingMessage], _: int) -> None:
        next(messages)
        raise KeyboardInterrupt

    monkeypatch.setattr(pending_listing, "print_table", interrupted)
    ended = cli("list")
    assert [one.id for one in app.pending.list()] == order
    assert ended.code == 130
    assert "read; what fell due meanwhile was late by at most" in ended.err
    messages = app.pending.list()
    next(messages)
    del messages
    assert [one.id for one in app.pending.list()] == order


# ---- the program ------------------------------------------------------------------------------------------------------


def test_the_program_lists_and_shows_what_waits(cli: Callable[[str], Ended], remind: Task[[int], int]) -> None:
    assert cli("list").out == "No messages are pending.\n"
    assert cli("list --json").json == []
    for number, delay in enumerate((5000, 100, 300)):
        remind.options(delay=delay, id=f"m-{number}").send(number)
    assert cli("list --task rmind").out == "No messages with this task, queue or due time are pending.\n"
    rows = cli("list --json").json
    assert {row["id"] for row in rows} == {"m-0", "m-1", "m-2"}
    assert rows[0] == {
        "id": "m-0",
        "task": "remind",
        "queue": "emails",
        "due": rows[0]["due"],
        "due_is_latest": False,
        "attempt": 1,
        "first_sent": rows[0]["first_sent"],
        "expires": None,
        "unknown_since": None,
    }
    assert rows[0]["due"].endswith("Z")
    listed = cli("list --limit 2")
    assert listed.out.splitlines()[0].startswith("3 pending messages, 2 shown: those that are due first")
    assert [line.split()[2] for line in listed.out.splitlines() if "m-" in line] == ["m-1", "m-2"]
    assert "3 messages read; what fell due meanwhile was late by at most" in listed.err
    assert [row["id"] for row in cli("list --due-before 200 --json").json] == ["m-1"]
    assert cli("list -q none --json").json == cli("list --task none --json").json == []
    shown = cli("show m-2")
    assert shown.code == 0
    assert "aw-eta" in shown.out
    (whole,) = cli("show m-2 --json").json
    assert whole["body"] == {"n": 2}
    assert cli("show none --json").json == []
    ended = cli("show none")
    assert ended.code == 1
    assert "No pending message with the id 'none' was found: it may be moving" in ended.out


def test_the_program_cancels_and_reschedules(cli: Callable[[str], Ended], remind: Task[[int], int]) -> None:
    for number in range(3):
        remind.options(delay=5000, id=f"m-{number}").send(number)
    (rescheduled,) = cli("reschedule m-0 --delay 100 --json").json
    assert rescheduled["id"] == "m-0"
    assert cli("list --due-before 200 --json").json[0]["due"] == rescheduled["due"]
    assert cli("reschedule m-1 --at 2030-01-01T00:00Z").out == "m-1: due 2030-01-01T00:00:00.000Z\n"
    assert cli("reschedule none --now").code == 1
    missing = cli("reschedule none --now --json")
    assert (missing.code, missing.json) == (1, [])
    cancelled = cli("cancel m-0 none --due 2031-01-01T00:00Z")
    assert cancelled.code == 0
    assert cancelled.out.splitlines() == [
        "m-0: removed",
        "none: announced, not found among the delayed messages: no worker starts it until 2031-01-08T00:00:00.000Z",
    ]
    assert cancelled.err.startswith("announced, until 2031-01-08T00:00:00.000Z; ")
    assert cli("cancel m-1 --json").json == [{"id": "m-1", "outcome": "removed", "until": None}]
    assert [row["id"] for row in cli("list --json").json] == ["m-2"]
    for wrong in (
        "reschedule m-2",
        "reschedule m-2 --now --delay 1",
        "reschedule m-2 --at soon",
        "list --due-before x",
    ):
        ended = cli(wrong)
        assert ended.code == 2
        assert "--" in ended.complaint()


def test_the_program_asks_before_it_reads_many(
    cli: Callable[[str], Ended], remind: Task[[int], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_command, "ASK_ABOVE", 1)
    for number in range(2):
        remind.options(delay=5000, id=f"m-{number}").send(number)
    ended = cli("list")
    assert ended.code == 2
    assert "2 messages wait" in ended.complaint()
    assert "--yes" in ended.err
    assert len(cli("list --yes --json").json) == 2


def test_the_program_reports_what_it_does_not_know_of_the_ladder(
    cli: Callable[[str], Ended], remind: Task[[int], int], vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    remind.options(delay=16, id="m-1").send(1)
    level = Names().level(7)
    monkeypatch.setattr(pending_walk, "QueueWalker", partial(QueueWalker, patience=0.2))
    with QueueWalker(vhost.url, Settings()) as other, other.walk(level):
        ended = cli("cancel m-1 --due 2031-01-01T00:00Z")
    assert ended.code == 2
    first, second, *_ = ended.err.splitlines()
    assert first == f"another program is reading queue {level!r}: its messages are not all counted"
    assert second.startswith("announced, until 2031-01-08T00:00:00.000Z; ")
    vhost.delete_queue(level)
    ended = cli("list")
    assert ended.out == "No messages are pending.\n"
    assert f"these do not exist, and what waited in them is lost: {level}. Create them" in ended.err


def test_few_permissions_are_enough_to_read_and_to_change_what_is_pending(
    app: App, remind: Task[[int], int], make_app: Callable[..., App], stranger: Callable[..., str]
) -> None:
    """As docs/topology.md has them."""
    for number in range(3):
        remind.options(delay=3600, id=f"m-{number}").send(number)
    app.pending.cancel("none")  # declares the stream of cancels
    levels = r"^amqpworker\.delay\.\d\d$"
    reader = make_app(stranger(read=levels), declare=False)
    assert len(list(reader.pending.list())) == 3
    with pytest.raises(AccessRefused):
        reader.pending.reschedule("m-0", delay=60)
    operator = make_app(stranger(write=r"^amqpworker\.(tasks|due|delay\.\d\d)$", read=levels), declare=False)
    assert operator.pending.reschedule("m-0", delay=0) is True
    assert operator.pending.reschedule("m-1", delay=60) is True
    far = datetime.now(UTC) + timedelta(days=1)
    assert operator.pending.cancel("m-1") == {"m-1": "removed"}
    assert operator.pending.cancel("m-2", due=far) == {"m-2": "removed"}


def test_a_message_of_another_program_is_listed_too(
    cli: Callable[[str], Ended], remind: Task[[int], int], vhost: Broker
) -> None:
    remind.options(delay=5000, id="ours").send(1)
    told = pika.BasicProperties(headers={"aw-wait-11": 1, "aw-eta": "soon", "odd": "\x1b[2J"}, delivery_mode=2)
    with raw_channel(vhost.url) as channel:
        channel.basic_publish(Names().level(11), "emails", b"\xff no JSON", told)
    wait_until(lambda: vhost.count(Names().level(11)) == 1)
    listed = cli("list")
    assert "(no id)" in listed.out
    assert re.search(r"^by 20[-\d]+ [:\d]+Z  ", listed.out, re.MULTILINE)
    assert "\x1b" not in listed.out + cli("show ours").out
    assert cli("list --json").json[1]["due_is_latest"] is True
