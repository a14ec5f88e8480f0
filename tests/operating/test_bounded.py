"""A bounded queue: new work meets the bound, what was accepted never does and is taken first, and a bound never changes."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import pty
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amqpworker import App, ConfigError, QueueFull, current
from tests.cli import Ended, environment, run_here, started
from tests.clients import Client, result_of
from tests.integration.tasks import another_of, echo_of
from tests.support import Broker, raw_channel, wait_until
from tests.workers import running

MakeApp = Callable[..., App]
MakeClient = Callable[[App], Client]

SMALL, DUE = "small", "small.due"


def fill(app: App, vhost: Broker, count: int) -> None:
    """Send until the queue has refused a few messages."""
    echo = echo_of(app, SMALL)
    refused = 0
    while refused < 3:
        try:
            echo.send("x")
        except QueueFull:
            refused += 1
    assert count <= vhost.count(SMALL) <= count + 3


def bindings(vhost: Broker) -> set[tuple[str, str]]:
    """Return the exchanges and queues that are bound under the queue's name."""
    found = vhost.management.bindings(vhost.vhost)
    return {(one["source"], one["destination"]) for one in found if one["routing_key"] == SMALL and one["source"]}


BOUND_TO = {("amqpworker.tasks", SMALL), ("amqpworker.due", DUE), ("amqpworker.dead", "small.dead")}


# ---- the bound -----------------------------------------------------------------------------------------------------


def test_new_work_meets_the_bound_and_delayed_messages_are_on_time_beside_it(app: App, vhost: Broker) -> None:
    app.queue(SMALL, max_length=5)
    fill(app, vhost, 5)
    assert {type(one) for one in app.send_each(echo_of_small(app).message("x") for _ in range(3))} == {QueueFull}
    with pytest.raises(QueueFull):
        echo_of_small(app).call("x")
    delayed, other = echo_of_small(app).options(delay=0.25), another_of(app, "other").options(delay=0.25)
    other.send()  # declares its queue
    vhost.wait_for_message("other")
    before = time.monotonic()
    for _ in range(64):  # more than the dead-letter worker of a level has in flight
        delayed.send("x")
    other.send()
    vhost.wait_for_count("other", 1)
    assert time.monotonic() - before < 5.0
    vhost.wait_for_count(DUE, 64)
    assert vhost.count(SMALL) <= 8


def echo_of_small(app: App) -> Any:
    return app.remotes["test.echo"]


@pytest.mark.parametrize("declare", ["setting", "option"])
def test_an_app_that_only_sends_states_the_same_bound_and_declares_nothing(
    make_app: MakeApp, vhost: Broker, declare: str
) -> None:
    owner = make_app()
    owner.queue(SMALL, max_length=1)
    fill(owner, vhost, 1)
    sender = make_app(declare=declare != "setting")
    sender.queue(SMALL, max_length=1, declare=None if declare == "setting" else False)
    with pytest.raises(QueueFull, match="Queue 'small' is full and rejected the message: send it again later"):
        echo_of(sender, SMALL).send("x")


# ---- in the worker --------------------------------------------------------------------------------------------------


def test_what_was_accepted_runs_whatever_the_bound_and_keeps_the_name_of_its_queue(app: App, vhost: Broker) -> None:
    app.queue(SMALL, max_length=2)
    ran: list[tuple[str, int]] = []

    @app.task(name="test.work", queue=SMALL, retry=[0, 0.125])
    def work(number: int) -> None:
        ran.append((current().queue, current().attempt))
        if number or current().attempt < 3:
            raise OSError("away")

    sent = 0
    while sent < 2:
        work.send(sent)
        sent += 1
    with running(app, threads=2):
        wait_until(lambda: len(ran) == 6, 20, "both ran three times")
        vhost.wait_for_count("small.dead", 1)
    assert set(ran) == {(SMALL, attempt) for attempt in (1, 2, 3)}
    letter = vhost.wait_for_message("small.dead")
    assert (letter.exchange, letter.routing_key) == ("amqpworker.dead", SMALL)
    assert vhost.count("amqpworker.parked") == 0


@pytest.mark.parametrize("kind", ["thread", "own thread", "coroutine"])
def test_a_worker_takes_first_what_was_accepted_before(app: App, vhost: Broker, kind: str) -> None:
    app.queue(SMALL, max_length=1000)
    go, order = threading.Event(), list[str]()

    def note(text: str) -> None:
        go.wait(20)
        order.append(text)

    async def note_in_loop(text: str) -> None:
        while not go.is_set():
            await asyncio.sleep(0.01)
        order.append(text)

    task = app.task(name="test.note", queue=SMALL)(note_in_loop if kind == "coroutine" else note)
    app.send_many(task.message("new") for _ in range(10))
    app.send_many(task.options(delay=0.125).message("due") for _ in range(10))
    vhost.wait_for_count(DUE, 10)
    options: dict[str, Any] = {"queues": [{"name": SMALL, "threads": 1}]} if kind == "own thread" else {"threads": 1}
    with running(app, async_tasks=1, prefetch=32, **options):
        wait_until(lambda: vhost.count(SMALL) == vhost.count(DUE) == 0, 10, "the worker has them all")
        go.set()
        wait_until(lambda: len(order) == 20, 10, "all have run")
    # The first one may be of either queue.
    assert order[1:10].count("due") >= 9
    assert [text for text, _ in itertools.groupby(order[1:])] == ["due", "new"]


def test_what_the_broker_dead_letters_from_the_queue_beside_it_is_a_letter_of_the_queue(
    app: App, vhost: Broker
) -> None:
    app.queue(SMALL, max_length=10)
    sent = echo_of(app, SMALL).options(delay=0.125).send("x")
    vhost.wait_for_count(DUE, 1)
    with raw_channel(vhost.url) as channel:
        method, _, _ = channel.basic_get(DUE)
        assert method is not None
        channel.basic_reject(method.delivery_tag, requeue=False)
        vhost.wait_for_count("small.dead", 1)
    letter = vhost.wait_for_message("small.dead")
    assert (letter.properties.message_id, letter.routing_key) == (sent.id, SMALL)


# ---- declaring ------------------------------------------------------------------------------------------------------


def test_declaring_removes_the_binding_by_which_each_due_message_would_come_twice(
    make_app: MakeApp, make_client: MakeClient, vhost: Broker
) -> None:
    first = make_app()
    first.queue(SMALL, max_length=10)
    echo_of(first, SMALL).send("x")
    with raw_channel(vhost.url) as channel:
        channel.queue_bind(SMALL, "amqpworker.due", SMALL)
    assert bindings(vhost) == BOUND_TO | {("amqpworker.due", SMALL)}
    app = make_app()
    app.queue(SMALL, max_length=10)
    client = make_client(app)
    result_of(client.send(echo_of(app, SMALL).message("x")))
    wait_until(lambda: bindings(vhost) == BOUND_TO, 10, "the binding is removed")
    result_of(client.send(echo_of_small(app).options(delay=0.125).message("x")))
    vhost.wait_for_count(DUE, 1)
    assert vhost.count(SMALL) == 2


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (None, 10, "exists without a bound, but this app declares max_length=10"),
        (10, None, "exists with max_length=10, but this app declares none"),
        (10, 20, "exists with max_length=10, but this app declares max_length=20"),
    ],
)
def test_a_bound_that_is_put_taken_or_changed_is_an_error_with_the_migration(
    make_app: MakeApp, make_client: MakeClient, vhost: Broker, before: int | None, now: int | None, told: str
) -> None:
    owner = make_app()
    owner.queue(SMALL, max_length=before)
    echo_of(owner, SMALL).send("x")
    app = make_app()
    app.queue(SMALL, max_length=now)
    with pytest.raises(ConfigError) as refused:
        result_of(make_client(app).send(echo_of(app, SMALL).message("x")))
    assert f"The queue 'small' in vhost '{vhost.vhost}' {told}" in str(refused.value)
    assert "send to a queue with a new name, let workers empty the old one, and delete that" in str(refused.value)
    assert (("amqpworker.due", SMALL) in bindings(vhost)) == (before is None)
    assert (("amqpworker.due", DUE) in bindings(vhost)) == (before is not None)


def test_a_queue_gets_a_bound_by_a_new_name_while_nothing_is_lost(make_app: MakeApp, vhost: Broker) -> None:
    old = make_app()
    echo = echo_of(old, SMALL)
    sent = {echo.send("x").id, echo.options(delay=1.0).send("x").id}
    new, ran = make_app(), set[str]()
    new.queue(SMALL)

    @new.task(name="test.echo", queue=new.queue("small2", max_length=10))
    def run(text: str) -> None:
        ran.add(current().id)

    sent |= {run.send("x").id, run.options(delay=0.5).send("x").id, echo.send("x").id}
    with running(new, queues=[{"name": "small2"}, {"name": SMALL}], threads=1):
        wait_until(lambda: ran == sent, 20, "what was sent to either queue has run")


def test_a_worker_with_another_bound_ends_with_the_migration(
    make_app: MakeApp, vhost: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    owner = make_app()
    owner.queue(SMALL, max_length=10)
    echo_of(owner, SMALL).send("x")
    app = make_app()
    app.task(name="test.note", queue=SMALL)(lambda: None)
    with running(app, wait=False, code=2, threads=1) as worker:
        wait_until(lambda: worker.code is not None, 20, "the worker ends")
    assert "exists with max_length=10, but this app declares none" in caplog.text


# ---- the program ----------------------------------------------------------------------------------------------------

SHOP = """
from amqpworker import App
app = App()
app.queue("small", max_length=3)

@app.task(name="shop.small", queue="small")
def small(n: int) -> None: ...

@app.task(name="shop.plain", queue="plain")
def plain(n: int) -> None: ...
"""


@pytest.fixture
def cli(
    vhost: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], Ended]:
    """Run a command with an app whose broker is the test's, by the environment."""
    (tmp_path / "boundedshop.py").write_text(SHOP)
    monkeypatch.delitem(sys.modules, "boundedshop", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("AMQPWORKER_URL", vhost.url)
    return lambda line: run_here(capsys, *line.split())


def test_topology_check_finds_another_bound_and_bindings_by_which_messages_come_twice(
    cli: Callable[[str], Ended], vhost: Broker
) -> None:
    command = f"topology check boundedshop:app --management {vhost.node.management_url}"
    assert cli("topology declare boundedshop:app").code == 0
    assert cli(command).code == 0
    with raw_channel(vhost.url) as channel:
        channel.queue_delete("plain")
    vhost.declare_queue("plain.due")
    vhost.bind_queue("plain", **{**PLAIN, "x_max_length": 5})
    with raw_channel(vhost.url) as channel:
        for queue, key in ((SMALL, SMALL), ("plain", "plain"), ("plain.due", "plain")):
            channel.queue_bind(queue, "amqpworker.due", key)
    found = {(one["kind"], one["name"]): one["text"] for one in cli(f"{command} --json").json["findings"]}
    assert found.keys() == {("differs", "plain"), ("doubled", SMALL), ("doubled", "plain.due")}
    assert "exists with max_length=5, but this app declares none" in found["differs", "plain"]
    assert "`amqpworker topology declare` removes this binding" in found["doubled", SMALL]
    assert max(map(len, cli(command).out.splitlines())) <= 80
    with raw_channel(vhost.url) as channel:
        channel.queue_delete("plain")
        channel.queue_delete("plain.due")
    assert cli("topology declare boundedshop:app").code == 0
    assert cli(command).code == 0
    assert bindings(vhost) == BOUND_TO


PLAIN = {
    "x_dead_letter_exchange": "amqpworker.dead",
    "x_dead_letter_routing_key": "plain",
    "x_dead_letter_strategy": "at-least-once",
    "x_overflow": "reject-publish",
    "x_delivery_limit": 200,
}


def test_purging_drops_what_waits_in_both_queues_and_asks_first(
    cli: Callable[[str], Ended], vhost: Broker, tmp_path: Path
) -> None:
    command = "queues purge small --app boundedshop:app"
    assert "does not exist on this broker yet" in cli(command).complaint()
    cli("topology declare boundedshop:app")
    assert cli(command) == Ended(0, "Dropped 0 messages of 'small' and 0 messages of 'small.due'.\n", "")
    for exchange, key in (("tasks", SMALL), ("due", SMALL), ("due", SMALL), ("dead", SMALL), ("tasks", "plain")):
        assert vhost.publish(f"amqpworker.{exchange}", key, "{}")
    question = "Drop 1 message of 'small' and 2 messages of 'small.due' for good?"
    unanswered = cli(command)
    assert unanswered.code == 2
    assert unanswered.complaint() == f"{question} Standard input is not a terminal: confirm with --yes."
    assert (vhost.count(SMALL), vhost.count(DUE)) == (1, 2), "nothing was dropped yet"
    told, code = answered(tmp_path, vhost, command, "y\n")
    assert code == 0
    assert question in told
    assert (vhost.count(SMALL), vhost.count(DUE)) == (0, 0)
    assert (vhost.count("small.dead"), vhost.count("plain")) == (1, 1)
    assert cli("queues purge plain --app boundedshop:app --yes --json").json == [{"queue": "plain", "purged": 1}]
    assert "The app has no queue 'smal': did you mean small?" in cli("queues purge smal --app boundedshop:app").err


def test_what_arrives_after_a_queue_was_counted_as_empty_is_not_purged_without_a_question(
    cli: Callable[[str], Ended], vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("topology declare boundedshop:app")

    def waiting(*_: object) -> dict[str, int]:
        assert vhost.publish("amqpworker.tasks", "plain", "{}")
        return {"plain": 0}

    monkeypatch.setattr("amqpworker.cli.queues_command._waiting", waiting)
    assert cli("queues purge plain --app boundedshop:app").out == "Dropped 0 messages of 'plain'.\n"
    vhost.wait_for_count("plain", 1)
    assert cli("queues purge plain --app boundedshop:app -y").out == "Dropped 2 messages of 'plain'.\n"


def test_purging_needs_the_permission_to_read(
    cli: Callable[[str], Ended], vhost: Broker, stranger: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("topology declare boundedshop:app")
    for read, lacking in (("^small$", "small.due"), (r"^small(\.due)?$", "")):
        monkeypatch.setenv("AMQPWORKER_URL", stranger(configure="^$", write="^$", read=read))
        monkeypatch.delitem(sys.modules, "boundedshop")
        ended = cli("queues purge small --app boundedshop:app --yes")
        assert ended.code == (2 if lacking else 0)
        assert not lacking or f"lacks the permission `read` on queue '{lacking}'" in ended.complaint()


def answered(folder: Path, vhost: Broker, command: str, answer: str) -> tuple[str, int]:
    """Run a command at a terminal and answer there; return what is shown there, and the exit code."""
    ours, its = pty.openpty()
    with started(
        folder,
        environment(vhost.url),
        *command.split(),
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    ) as process:
        os.close(its)
        told = b""
        while b"?" not in told:
            told += os.read(ours, 1000)
        os.write(ours, answer.encode())
        code = process.wait(20)
    os.close(ours)
    return told.decode(), code
