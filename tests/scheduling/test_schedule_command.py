"""`amqpworker schedule` against a real broker, with a leader that only replies."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from amqpworker import App, CallTimeout
from amqpworker.client.schedule_commands import send_commands
from amqpworker.model.headers import time_of
from amqpworker.model.reply import Reply
from amqpworker.results.row import ResultRow
from amqpworker.results.store import open_store
from amqpworker.routing.schedule_messages import Command
from amqpworker.schedules.tick import tick_id
from amqpworker.worker.app_loader import load_app
from tests.cli import Ended, environment, run_here, started
from tests.docs import ROOT, blocks
from tests.integration.leader import LISTED, ScriptedLeader, declare_scheduler, leading
from tests.proxy import Proxy
from tests.support import Broker, milliseconds, raw_channel, wait_until

APP = """
from amqpworker import App
app = App(results="sqlite:///results.db")

@app.task(name="shop.clean_up", queue="cleaning")
def clean_up(days: int = 1) -> None: ...

clean_up.schedule("nightly", cron="30 2 * * *", tz="Europe/Paris")(days=3)
clean_up.schedule("hourly", every=3600)()
"""
QUEUE = "amqpworker.schedule.main"


@pytest.fixture
def folder(vhost: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module `tickshop`, whose app has two schedules."""
    (tmp_path / "tickshop.py").write_text(APP)
    monkeypatch.delitem(sys.modules, "tickshop", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("AMQPWORKER_URL", vhost.url)
    monkeypatch.setenv("AMQPWORKER_APP", "tickshop:app")
    return tmp_path


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], folder: Path) -> Callable[[str], Ended]:
    return lambda line: run_here(capsys, *line.split())


# ---- list -------------------------------------------------------------------------------------------------------------


def test_list_shows_what_the_leader_knows_within_80_columns(cli: Callable[[str], Ended], vhost: Broker) -> None:
    paused = {**LISTED, "name": "hourly", "paused": "2026-11-28T20:00:00.000Z", "missed": 7, "next": None}
    paused |= {"last_missed": "2026-11-28T05:00:00.000Z", "lagging": "2026-11-28T06:00:00.000Z", "skipped": 9}
    with leading(vhost.url, ScriptedLeader([LISTED, paused], differing=["web-2:4712"])) as leader:
        ended = cli("schedule list")
    assert (ended.code, ended.err) == (0, "")
    assert max(map(len, ended.out.splitlines())) <= 80
    for part in (
        "Scheduler main: web-1:4711 leads since 2026-11-28 08:00:00Z.",
        "Ticks are sent up to 2026-11-28 23:59:58.500Z.",
        "Other schedules than the leader have: web-2:4712.",
        "30 2 * * *",
        "Europe/Paris",
        "2026-11-29 01:30:00Z",
        "missed 7",
        "skipped 9",
        "paused since",
        "2026-11-28 20:00:00Z",
        "lagging since",
    ):
        assert part in ended.out
    ((kind, body, headers),) = leader.commands
    assert (kind, body) == ("list", {})
    assert milliseconds(headers["aw-expires"]) == milliseconds(headers["aw-first-sent"]) + 2000


def test_list_as_json_has_times_as_the_wire_writes_them(cli: Callable[[str], Ended], vhost: Broker) -> None:
    with leading(vhost.url, ScriptedLeader([LISTED])):
        ended = cli("schedule list --json")
    hourly, nightly = ended.json
    known = {"name": "web-1:4711", "since": "2026-11-28T08:00:00.000Z", "until": "2026-11-28T23:59:58.500Z"}
    assert nightly == {**LISTED, "outcome": None, "leader": {**known, "differing": []}}
    # the leader does not have this one
    assert (hourly["name"], hourly["leader"], hourly["last"], hourly["missed"]) == ("hourly", None, None, None)
    assert milliseconds(hourly["next"]) % 3_600_000 == 0


def test_list_shows_the_outcome_of_the_last_tick(cli: Callable[[str], Ended], folder: Path, vhost: Broker) -> None:
    last = time_of(LISTED["last"])
    assert last is not None
    now = time.time()
    task_id = tick_id("amqpworker", "main", "nightly", last)
    row = ResultRow(task_id, "failed", "shop.clean_up", b'{"status":"failed","reason":"failed"}', "", now, now + 60)
    store = open_store("sqlite:///results.db", "amqpworker")
    assert store.put([row]) == {}
    store.close()
    with leading(vhost.url, ScriptedLeader([LISTED])):
        assert [one["outcome"] for one in cli("schedule list --json").json] == [None, "failed"]
        assert "failed" in cli("schedule list").out


def test_a_store_that_cannot_be_read_leaves_only_the_outcomes_out(
    cli: Callable[[str], Ended], folder: Path, vhost: Broker
) -> None:
    (folder / "results.db").write_bytes(b"not a database" * 1000)
    with leading(vhost.url, ScriptedLeader([LISTED])):
        ended = cli("schedule list")
    assert ended.code == 0
    assert ended.complaint().startswith("Outcomes are not known: ")
    assert "2026-11-29 01:30:00Z" in ended.out


def test_list_without_a_leader_shows_what_the_app_defines(cli: Callable[[str], Ended], vhost: Broker) -> None:
    never_ran = cli("schedule list")
    assert never_ran.code == 1
    assert "No leader: no scheduler 'main' has run on this broker" in " ".join(never_ran.out.split())
    declare_scheduler(vhost.url)
    ended = cli("schedule list")
    assert (ended.code, ended.err) == (1, "")
    assert "No leader: no scheduler 'main' is running" in ended.out
    assert "every 1 h" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80
    as_json = cli("schedule list --json")
    assert as_json.code == 1
    assert as_json.complaint() == "no scheduler 'main' is running"
    assert [one["leader"] for one in as_json.json] == [None, None]
    assert all(milliseconds(one["next"]) for one in as_json.json)
    vhost.wait_for_count(QUEUE, 0)  # nothing is left for the next leader


def test_a_reply_that_cannot_be_read_is_one_line(cli: Callable[[str], Ended], vhost: Broker) -> None:
    with leading(vhost.url, ScriptedLeader([{**LISTED, "missed": "many"}])):
        ended = cli("schedule list")
    assert ended.complaint().startswith("The reply of the leader cannot be read: schedules.0.missed: ")
    assert ended.code == 2


# ---- pause and resume -------------------------------------------------------------------------------------------------


def test_pause_and_resume_return_once_the_leader_has_replied(cli: Callable[[str], Ended], vhost: Broker) -> None:
    with leading(vhost.url, ScriptedLeader([LISTED, {**LISTED, "name": "hourly"}])) as leader:
        assert cli("schedule pause nightly hourly nightly") == Ended(0, "nightly: paused\nhourly: paused\n", "")
        assert cli("schedule resume nightly") == Ended(0, "nightly: resumed\n", "")
    assert [(kind, body["schedule"]) for kind, body, _ in leader.commands] == [
        ("pause", "nightly"),
        ("pause", "hourly"),
        ("resume", "nightly"),
    ]
    assert all("aw-expires" not in headers for _, _, headers in leader.commands)


def test_a_pause_without_a_leader_waits_in_the_queue_and_exits_with_1(
    cli: Callable[[str], Ended], vhost: Broker
) -> None:
    declare_scheduler(vhost.url)
    ended = cli("schedule pause nightly hourly")
    assert (ended.code, ended.err) == (1, "")
    assert ended.out == (
        "nightly: waits for a leader: no scheduler 'main' is running\n"
        "hourly: waits for a leader: no scheduler 'main' is running\n"
        "What waits stays in the queue, and takes effect once a scheduler leads.\n"
    )
    assert vhost.count(QUEUE) == 2
    with leading(vhost.url, ScriptedLeader([LISTED])) as leader:
        wait_until(lambda: len(leader.commands) == 2, what="the commands that waited")
    assert {body["schedule"] for _, body, _ in leader.commands} == {"nightly", "hourly"}


def test_a_leader_that_does_not_reply_is_not_one_that_is_missing(cli: Callable[[str], Ended], vhost: Broker) -> None:
    declare_scheduler(vhost.url)
    with raw_channel(vhost.url) as channel:
        channel.basic_consume(QUEUE, lambda *_: None)
        ended = cli("schedule pause nightly")
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.startswith("nightly: waits for a leader: no scheduler 'main' has replied\n")


def test_a_command_whose_connection_is_lost_before_the_reply_waits_for_a_leader(
    make_app: Callable[..., App], vhost: Broker
) -> None:
    declare_scheduler(vhost.url)
    with Proxy(vhost.url) as proxy, ThreadPoolExecutor() as pool:
        app = make_app(proxy.url)
        answers = pool.submit(send_commands, app.producer, app.plan.names, [Command("pause", "main", "nightly")], 60.0)
        wait_until(lambda: vhost.count(QUEUE) == 1, timeout=30, what="the command in the queue")
        wait_until(lambda: app.producer.publisher.is_idle, what="its confirm")
        proxy.reset()
        (answer,) = answers.result(timeout=10)
    assert isinstance(answer, CallTimeout)
    assert str(answer) == "the connection was lost before a reply"


def test_a_schedule_that_the_leader_does_not_have_is_refused_by_it(cli: Callable[[str], Ended], vhost: Broker) -> None:
    with leading(vhost.url, ScriptedLeader([LISTED])):
        ended = cli("schedule pause nightly hourly")
    assert ended == Ended(1, "nightly: paused\nhourly: refused by the leader: Unknown schedule 'hourly'.\n", "")


@pytest.mark.parametrize("declares", [True, False])
def test_a_command_for_a_scheduler_that_never_ran_declares_nothing(
    cli: Callable[[str], Ended], vhost: Broker, monkeypatch: pytest.MonkeyPatch, declares: bool
) -> None:
    monkeypatch.setenv("AMQPWORKER_DECLARE", str(int(declares)))
    for line in ("schedule pause nightly", "schedule resume nightly --name mian"):
        ended = cli(line)
        assert "has run on this broker" in ended.complaint()
        assert "amqpworker.schedule." in ended.complaint()
        assert ended.code == 1
    assert vhost.queues() == []
    declare_scheduler(vhost.url)
    assert "No scheduler 'mian' has run on this broker" in cli("schedule pause nightly --name mian").complaint()


def test_a_user_without_permission_to_command_is_refused_in_one_line(
    cli: Callable[[str], Ended],
    vhost: Broker,
    stranger: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    declare_scheduler(vhost.url)
    monkeypatch.setenv("AMQPWORKER_URL", stranger(write="^amqpworker.tasks$"))
    ended = cli("schedule pause nightly")
    assert "lacks the permission `write` on exchange 'amqpworker.schedule'" in ended.complaint()
    assert ended.code == 2


def test_the_listed_permissions_are_sufficient_to_command(
    cli: Callable[[str], Ended],
    vhost: Broker,
    stranger: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cli("topology declare")
    monkeypatch.setenv("AMQPWORKER_URL", stranger("^$", r"^amqpworker\.(schedule|tasks)$", "^$"))
    monkeypatch.setenv("AMQPWORKER_DECLARE", "0")
    monkeypatch.delitem(sys.modules, "tickshop")
    with leading(vhost.url, ScriptedLeader([LISTED, {**LISTED, "name": "hourly"}])):
        assert [cli(f"schedule {line}").code for line in ("list", "pause nightly", "run nightly")] == [0, 0, 0]


def test_ctrl_c_while_it_waits_for_a_leader_ends_it_at_once(folder: Path, vhost: Broker) -> None:
    declare_scheduler(vhost.url)
    with started(folder, environment(vhost.url), "schedule", "pause", "nightly") as process:
        wait_until(lambda: vhost.count(QUEUE) == 1, timeout=30, what="the command in the queue")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (130, "", "")


@contextmanager
def scheduler(folder: Path, vhost: Broker) -> Iterator[None]:
    """Run a scheduler of the app for the time of a block."""
    with started(folder, environment(vhost.url), "scheduler", "tickshop:app") as process:
        yield
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0


def leaders_reply() -> dict[str, Any]:
    """Return what the leader replies to `list`."""
    app = load_app("tickshop:app")
    (answer,) = send_commands(app.producer, app.plan.names, [Command("list", "main")], 10.0)
    app.close()
    assert isinstance(answer, Reply), answer
    value: dict[str, Any] = json.loads(answer.value or b"null")
    return value


def reply_in_the_wire_contract() -> dict[str, Any]:
    found = [json.loads(block) for block in blocks(ROOT / "docs/wire.md", "json") if '"differing"' in block]
    (value,) = found
    assert isinstance(value, dict)
    return value


def shape(reply: dict[str, Any]) -> list[list[str]]:
    """Return the names in a reply to `list`, and those of its first schedule."""
    return [sorted(reply), sorted(reply["schedules"][0])]


def test_a_pause_that_waited_for_the_first_scheduler_lasts_until_it_is_resumed(
    cli: Callable[[str], Ended], folder: Path, vhost: Broker
) -> None:
    def paused() -> dict[str, bool] | None:
        listed = cli("schedule list --json")
        return {one["name"]: one["paused"] is not None for one in listed.json} if listed.code == 0 else None

    declare_scheduler(vhost.url)
    assert cli("schedule pause nightly").code == 1
    with scheduler(folder, vhost):
        assert wait_until(paused, 30, what="a leader") == {"hourly": False, "nightly": True}
        assert cli("schedule pause hourly") == Ended(0, "hourly: paused\n", "")
    with scheduler(folder, vhost):
        assert wait_until(paused, 30, what="another leader") == {"hourly": True, "nightly": True}
        assert shape(leaders_reply()) == shape(reply_in_the_wire_contract())
        assert cli("schedule resume hourly nightly").code == 0
        assert paused() == {"hourly": False, "nightly": False}
        shown = cli("schedule list")
    assert (shown.code, shown.err) == (0, "")
    assert "Scheduler main: " in shown.out
    assert max(map(len, shown.out.splitlines())) <= 80


# ---- run --------------------------------------------------------------------------------------------------------------


def test_run_sends_the_task_of_a_schedule_now(cli: Callable[[str], Ended], vhost: Broker) -> None:
    before = int(time.time() * 1000)
    ended = cli("schedule run nightly")
    after = int(time.time() * 1000)
    assert (ended.code, ended.err) == (0, "")
    message = vhost.wait_for_message("cleaning")
    assert message.properties.message_id == ended.out.strip()
    assert ended.out[14] == "7"  # a UUIDv7: not the id of a tick
    assert (message.properties.type, json.loads(message.body)) == ("shop.clean_up", {"days": 3})
    assert message.headers["aw-schedule"] == "nightly"
    assert before <= milliseconds(message.headers["aw-nominal"]) <= after
    told = cli("schedule run hourly --json").json
    assert told == {"id": vhost.wait_for_message("cleaning").properties.message_id, **told}
    assert (told["schedule"], told["task"]) == ("hourly", "shop.clean_up")
    assert QUEUE not in vhost.queues()


# ---- without a broker ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["list", "run nightly", "pause nightly"])
def test_an_unreachable_broker_is_one_line_without_the_password(
    cli: Callable[[str], Ended], monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setenv("AMQPWORKER_URL", "amqp://guest:hidden@127.0.0.1:1/")
    monkeypatch.setenv("AMQPWORKER_SEND_TIMEOUT", "1")
    ended = cli(f"schedule {line}")
    assert "connection refused by 127.0.0.1:1" in ended.complaint()
    assert "hidden" not in ended.err
    assert ended.code == 2


def test_topology_has_the_default_scheduler_if_the_app_has_schedules(
    cli: Callable[[str], Ended], vhost: Broker
) -> None:
    assert cli("topology declare").code == 0
    assert QUEUE in vhost.queues()
    assert cli("topology check").code == 0
    assert QUEUE in cli("topology show").out
