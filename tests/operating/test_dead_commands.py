"""The commands for dead letters, and `app.dead`, against a real broker."""

from __future__ import annotations

import json
import math
import os
import pty
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partialmethod
from pathlib import Path
from typing import Any

import pika
import pytest

from amqpworker import App, ConfigError, InvalidArguments, NotConnected
from amqpworker.broker.admin import Admin
from amqpworker.broker.queue_walk import QueueWalker, Walk
from amqpworker.client import letter_walks
from amqpworker.routing.topology import base, work_queue
from amqpworker.worker.app_loader import load_app
from tests.cli import Ended, environment, run_here, started
from tests.docs import ROOT, commands
from tests.support import Broker, raw_channel, wait_until
from tests.workers import running

SHOP = """
from amqpworker import App
app = App()

@app.task(name="shop.charge", queue="billing", retry=None)
def charge(order: str, cents: int = 1) -> str:
    if cents < 0:
        raise ValueError(f"{cents} cents for order {order!r}")
    return order

@app.task(name="shop.note", queue="notes", retry=None)
def note() -> None: ...
"""
AT = datetime(2026, 11, 30, 2, 9, 8, 797000, tzinfo=UTC)
DEAD, WORK, PARKED = "billing.dead", "billing", "amqpworker.parked"


HEADERS_FLAG, TYPE_FLAG = 0x2000, 0x0020
FAR_TIME = b"\x04timeT" + struct.pack(">Q", 2**62)
NOT_UTF8 = b"\x03\xff\xfe\xfdS" + struct.pack(">I", 2) + b"\xc3\x28"


class RawProperties(pika.BasicProperties):
    """Properties of bytes that pika would not write."""

    def encode(self) -> list[bytes]:
        table = FAR_TIME + NOT_UTF8
        return [struct.pack(">H", HEADERS_FLAG | TYPE_FLAG), struct.pack(">I", len(table)), table, b"\x03t\xffe"]


@pytest.fixture
def shop(vhost: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """An app whose topology is declared on the test's broker; the commands find it as `deadshop:app`."""
    for name in ("deadshop", "deadworker"):
        (tmp_path / f"{name}.py").write_text(SHOP)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("AMQPWORKER_URL", vhost.url)
    monkeypatch.setenv("AMQPWORKER_APP", "deadshop:app")
    app = load_app("deadworker:app")
    queues = base("amqpworker") + work_queue("amqpworker", WORK) + work_queue("amqpworker", "notes")
    with Admin(vhost.url, app.settings) as admin:
        admin.declare(queues, lambda _: None)
    with app:
        yield app


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], shop: App) -> Callable[[str], Ended]:
    return lambda line: run_here(capsys, *line.split())


class Letters:
    """Publishes dead letters as workers do, many of them over one connection."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    def add(self, count: int = 1, first: int = 0, exchange: str = "amqpworker.dead", **properties: Any) -> list[str]:
        """Publish letters with the ids `id-0`, `id-1` and so on, and return these."""
        ids = [f"id-{number}" for number in range(first, first + count)]
        with raw_channel(self.broker.url) as channel:
            for number, one in enumerate(ids, first):
                headers = {
                    "aw-dead-reason": "failed",
                    "aw-error-type": "ValueError",
                    "aw-error": f"no order {number}",
                    "aw-traceback": "Traceback\n  in charge",
                    "aw-failed-at": (AT + timedelta(seconds=number)).isoformat(),
                    "aw-attempt": 3,
                    "tenant": "acme",
                }
                values = {
                    "message_id": one,
                    "type": "shop.charge",
                    "headers": headers,
                    "delivery_mode": 2,
                    **properties,
                }
                body = json.dumps({"order": f"o-{number}"})
                channel.basic_publish(exchange, WORK, body.encode(), pika.BasicProperties(**values))
            # While the channel is open: it publishes again to a queue that has just been declared and had no leader yet.
            queue = PARKED if exchange == PARKED else DEAD
            wait_until(lambda: self.broker.count(queue) >= count, what="the letters are there")
        return ids


@pytest.fixture
def letters(vhost: Broker, shop: App) -> Letters:
    return Letters(vhost)


# ---- list and show ------------------------------------------------------------------------------------------------------


def test_letters_are_listed_in_groups_of_the_same_error(
    cli: Callable[[str], Ended], vhost: Broker, letters: Letters
) -> None:
    letters.add(3)
    letters.add(1, 3, type="shop.other")
    listed = cli("dead list --json").json
    assert [(one["queue"], one["task"], one["count"]) for one in listed] == [
        (DEAD, "shop.charge", 3),
        (DEAD, "shop.other", 1),
    ]
    assert (listed[0]["first"], listed[0]["last"]) == ("2026-11-30T02:09:08.797Z", "2026-11-30T02:09:10.797Z")
    assert (listed[0]["reason"], listed[0]["error"]) == ("failed", "no order 0")
    ended = cli("dead list")
    assert max(map(len, ended.out.splitlines())) <= 80
    assert "billing.dead: 4 dead letters in 2 groups" in ended.out
    assert listed[0]["group"] in ended.out
    assert "notes.dead: no dead letters" in ended.out
    assert "amqpworker.parked: no parked messages" in ended.out
    for line in ("dead list --task shop.chrge", "dead list --reason faild --letters"):
        assert "billing.dead: dead letters, but none that was asked for" in cli(line).out
    group = listed[0]["group"]
    assert f"For the letters of a group use --group {group};" in cli(f"dead replay {group}").err
    assert f"For the letters of a group use --group {group};" in cli(f"dead show {group}").out
    each = cli(f"dead list -q billing --group {listed[0]['group']} --task shop.charge --letters --limit 2 --json").json
    assert [one["id"] for one in each] == ["id-0", "id-1"]
    assert "3 dead letters, 2 shown" in cli("dead list --letters --limit 2 --task shop.charge").out
    assert vhost.ids(DEAD) == ["id-0", "id-1", "id-2", "id-3"], "they stay, in their order"


def test_a_letter_is_shown_by_its_id_or_by_its_hash(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker
) -> None:
    letters.add(2)
    letters.add(1, 2, message_id=None)
    (whole,) = cli("dead show id-1 --json").json
    assert whole["body"] == {"order": "o-1"}
    assert whole["traceback"] == "Traceback\n  in charge"
    shown = cli("dead show id-1").out
    assert shown.startswith("Dead letter in queue 'billing.dead'\n")
    assert all(part in shown for part in ("id-1", '"o-1"', "in charge", "shop.charge"))
    name = cli("dead list --letters --json").json[2]["name"]
    assert name.startswith("sha256:")
    assert cli(f"dead show {name} --json").json[0]["body"] == {"order": "o-2"}
    ended = cli("dead show 2 -q billing")
    assert (ended.code, ended.out.splitlines()) == (
        1,
        [
            "No dead letter with the id '2' in queue 'billing.dead'.",
            "Give the id of a dead letter, not its position in the list.",
        ],
    )


def test_of_several_letters_with_an_id_the_oldest_is_shown_and_json_has_all(
    cli: Callable[[str], Ended], letters: Letters
) -> None:
    letters.add(1)
    letters.add(1, 1, message_id="id-0")
    assert "2 have this id: billing.dead (2)" in cli("dead show id-0").out
    assert [one["error"] for one in cli("dead show id-0 --json").json] == ["no order 0", "no order 1"]


def test_a_letter_that_pika_cannot_read_is_listed_and_shown_and_replayed(
    cli: Callable[[str], Ended], shop: App, vhost: Broker
) -> None:
    assert vhost.publish("amqpworker.dead", WORK, b"\xff\x00 no JSON \x1b[2J", RawProperties())
    assert vhost.publish("amqpworker.dead", WORK, b"{}", pika.BasicProperties(type="plain", message_id="after"))
    ended = cli("dead list --letters")
    assert ended.code == 0
    assert "billing.dead: 2 dead letters" in ended.out
    assert "\x1b" not in ended.out
    name = cli("dead list --letters --json").json[0]["name"]
    (whole,) = cli(f"dead show {name} --json").json
    assert whole["problem"]
    assert whole["body"] == "\\xff\x00 no JSON \x1b[2J"
    shown = cli(f"dead show {name}")
    assert shown.code == 0
    assert "\x1b" not in shown.out
    assert cli("dead export odd").code == 0
    assert cli("dead replay --all --yes").out == "2 dead letters replayed.\n"
    bodies = [vhost.wait_for_message(WORK).body for _ in range(2)]
    assert bodies == [b"\xff\x00 no JSON \x1b[2J", b"{}"]
    assert cli("dead import odd").out == "2 dead letters imported.\n"


def test_the_brokers_own_dead_letters_have_their_reason_and_can_be_replayed(
    cli: Callable[[str], Ended], shop: App, vhost: Broker
) -> None:
    vhost.declare_queue(
        "short", x_message_ttl=1, x_dead_letter_exchange="amqpworker.dead", x_dead_letter_routing_key=WORK
    )
    assert vhost.publish("", "short", b"{}")
    vhost.wait_for_count(DEAD, 1)
    (letter,) = cli("dead list --letters --json").json
    assert letter["reason"] == "expired (RabbitMQ)"
    assert letter["failed_at"]
    assert "RabbitMQ: its time to live expired (TTL)" in " ".join(cli("dead list").out.split())
    assert cli("dead replay --reason expired --yes").out == "1 dead letter replayed.\n"
    assert vhost.wait_for_message(WORK).headers.keys() <= {"aw-replayed", "x-delivery-count"}


def test_permission_to_read_is_enough_to_list_and_drop_and_the_missing_one_is_named(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters.add(2)
    vhost.publish("", PARKED, b"{}")
    name = f"user-of-{vhost.vhost}"
    vhost.management.create_user(name, "sesame-47")
    url = vhost.node.url(vhost.vhost, name, "sesame-47")
    try:
        vhost.management.set_permissions(vhost.vhost, name, "", "", r"^.*\.dead$")
        monkeypatch.setenv("AMQPWORKER_URL", url)
        monkeypatch.delenv("AMQPWORKER_APP")
        assert cli("dead list -q billing --json").json[0]["count"] == 2
        assert cli("dead drop id-0 -q billing").code == 0
        for line in ("dead list --parked", "dead show x --parked"):
            ended = cli(line)
            assert ended.code == 2
            assert f"user '{name}' lacks the permission `read` on queue 'amqpworker.parked'" in ended.err
            assert "topology declare" not in ended.err
        vhost.management.set_permissions(vhost.vhost, name, "", "", r"^billing.*$")
        ended = cli("dead replay id-1 -q billing")
        assert ended.code == 2
        assert "amqpworker.due" in ended.err
        assert vhost.count(DEAD) == 1
        vhost.management.set_permissions(vhost.vhost, name, "", r"^amqpworker\.due$", r"^billing.*$")
        assert cli("dead replay id-1 -q billing").code == 0
    finally:
        vhost.management.delete_user(name)


def test_dead_letters_of_a_queue_that_is_not_there_exit_with_2_and_a_name_that_is_near(
    cli: Callable[[str], Ended], shop: App, vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in ("dead list -q nope", "dead show 1 -q nope", "dead drop --yes -q nope", "dead export x -q nope"):
        ended = cli(line)
        assert "Queue 'nope.dead' does not exist" in ended.complaint()
        assert ended.code == 2
    for line in ("dead list -q bill", "dead show 1 -q bill.dead"):
        ended = cli(line)
        assert "Queue 'bill.dead' does not exist: did you mean 'billing'?" in ended.complaint()
    assert "did you mean 'amqpworker.parked'?" in cli("dead list -q amqpworker.parket").complaint()
    vhost.delete_queue(DEAD)
    reported = cli("dead list -q billing").complaint()
    assert "Queue 'billing.dead' does not exist yet: a worker or `amqpworker topology declare` creates it" in reported
    vhost.declare_queue("foreign")
    assert "but queue 'foreign' does" in cli("dead list -q foreign").complaint()
    # an app's own queues may not have been made yet
    assert cli("dead list").out.startswith("billing.dead: this queue does not exist yet")


def test_a_queue_that_another_program_reads_is_not_shown_in_part(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QueueWalker, "__init__", partialmethod(QueueWalker.__init__, patience=0.3))
    letters.add(4)
    with raw_channel(vhost.url) as channel:
        channel.basic_qos(prefetch_count=2)
        channel.basic_consume(DEAD, lambda *_: None)
        vhost.wait_for_count(DEAD, 2)
        for line in ("dead list", "dead show id-3", "dead replay --all --yes"):
            ended = cli(line)
            assert (ended.code, ended.out) == (2, "")
            assert f"Queue '{DEAD}' is being read by another program" in ended.err
    vhost.wait_for_count(DEAD, 4)


def test_letters_that_another_program_has_all_received_are_there_nevertheless(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QueueWalker, "__init__", partialmethod(QueueWalker.__init__, patience=0.3))
    letters.add(2)
    with raw_channel(vhost.url) as channel:
        channel.basic_consume(DEAD, lambda *_: None)
        vhost.wait_for_count(DEAD, 0)
        for line in ("dead list", "dead show id-1", "dead export -"):
            ended = cli(line)
            assert (ended.code, ended.out) == (2, "")
            assert f"Queue '{DEAD}' is being read by another program" in ended.err
    vhost.wait_for_count(DEAD, 2)


def test_an_app_or_a_namespace_that_is_given_counts_and_one_of_the_environment_gives_way(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker
) -> None:
    letters.add(1)
    both = cli(f"dead list -q billing --app deadshop:app --url {vhost.url}")
    assert (both.code, both.out) == (2, "")
    assert "not both: the app has its own" in both.complaint()
    assert "not both" in cli(f"dead list deadshop:app -q billing --url {vhost.url}").complaint()
    assert "Name queues with -q: with --url" in cli(f"dead list --url {vhost.url}").complaint()
    assert cli(f"dead list -q billing --url {vhost.url} --json").json[0]["count"] == 1
    assert cli("dead list --all --json").json[0]["count"] == 1
    assert "--all does not go together" in cli("dead list --all --task shop.charge").complaint()
    with Admin(vhost.url, load_app("deadworker:app").settings) as admin:
        admin.declare(base("other") + work_queue("other", "elsewhere"), lambda _: None)
    assert vhost.publish("other.dead", "elsewhere", b"{}", pika.BasicProperties(message_id="theirs", type="t"))
    assert cli("dead export file -q elsewhere --namespace other").code == 0
    assert cli("dead replay theirs -q elsewhere --namespace other").code == 0
    assert vhost.ids("elsewhere") == ["theirs"]
    assert cli("dead import file --namespace other").out == "1 dead letter imported.\n"
    assert (vhost.count("elsewhere.dead"), vhost.count("other.parked")) == (1, 0)
    wrong = cli("dead import file")
    assert "Warning: 1 message more in 'amqpworker.parked' than expected" in wrong.err


# ---- replay -------------------------------------------------------------------------------------------------------------


def test_a_replayed_letter_runs_again_with_its_id_and_its_first_attempt(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker
) -> None:
    letters.add(3)
    ended = cli("dead replay id-1")
    assert (ended.code, ended.out, ended.err) == (0, "1 dead letter replayed.\n", "")
    message = vhost.wait_for_message(WORK)
    assert message.properties.message_id == "id-1"
    assert message.exchange == "amqpworker.due"
    assert message.headers.keys() - {"x-delivery-count"} == {"aw-replayed", "tenant"}
    assert vhost.ids(DEAD) == ["id-0", "id-2"]


def test_many_letters_are_replayed_in_their_order_after_one_question(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker
) -> None:
    ids = letters.add(1200)
    ended = cli("dead replay --all")
    assert ended.code == 2
    assert "Replay 1200 dead letters? Standard input is not a terminal: confirm with --yes." in ended.err
    assert vhost.count(DEAD) == 1200
    ended = cli("dead replay --all --dry-run")
    assert (ended.code, vhost.count(DEAD)) == (0, 1200)
    assert ended.out.endswith("Nothing was done: 1200 dead letters would be replayed.\n")
    ended = cli("dead replay --all --yes --json")
    assert ended.json == [{"queue": DEAD, "letters": 1200}, {"queue": "notes.dead", "letters": 0}]
    assert vhost.count(DEAD) == 0
    assert vhost.ids(WORK) == ids


def test_a_verb_without_a_choice_does_nothing(cli: Callable[[str], Ended], letters: Letters, vhost: Broker) -> None:
    letters.add(2)
    for line in ("dead replay --yes", "dead drop --yes"):
        ended = cli(line)
        assert ended.code == 2
        assert "Choose letters" in ended.complaint()
    assert "--all does not go together" in cli("dead drop id-1 --all").complaint()
    assert vhost.count(DEAD) == 2


def test_an_id_that_is_not_found_exits_with_1_and_the_others_are_replayed(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker
) -> None:
    letters.add(2)
    ended = cli("dead replay id-1 nope --yes")
    assert ended.code == 1
    assert ended.out == "1 dead letter replayed.\n"
    assert "No dead letter with the id 'nope' in 2 queues. Parked messages need --parked." in ended.err
    assert vhost.ids(WORK) == ["id-1"]


@pytest.mark.parametrize("verb", ["replay", "drop"])
def test_json_of_ids_is_counts_of_these_ids_whatever_came_of_it(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker, verb: str
) -> None:
    letters.add(3)
    letters.add(1)
    none, one = {"name": "nope", "letters": 0}, {"name": "id-1", "letters": 1}
    assert (ended := cli(f"dead {verb} nope --json")).code == 1
    assert ended.json == [none]
    assert cli(f"dead {verb} id-1 --dry-run --json").json == [one]
    assert (ended := cli(f"dead {verb} nope id-1 --json")).code == 1
    assert ended.json == [none, one]
    assert (ended := cli(f"dead {verb} id-0 --json")).code == 1
    assert ended.json == [{"name": "id-0", "letters": 0}]
    assert "Several dead letters have the id 'id-0'" in ended.err
    assert cli(f"dead {verb} --task nope --json").json == [{"queue": q, "letters": 0} for q in (DEAD, "notes.dead")]
    assert cli(f"dead {verb} -q billing --yes --json").json == [{"queue": DEAD, "letters": 3}]


def test_edit_export_and_import_have_json_too(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker, tmp_path: Path
) -> None:
    letters.add(3)
    in_queues = [{"queue": DEAD, "letters": 3}, {"queue": "notes.dead", "letters": 0}]
    assert cli("dead export file --json").json == in_queues
    assert len((tmp_path / "file").read_text().splitlines()) == 3
    assert cli("dead import file --json").json == in_queues[:1]
    assert cli("dead edit id-0 --set cents=5 --all-copies --json").json == [{"name": "id-0", "letters": 2}]
    none = [{"name": "id-1", "letters": 0}]
    assert (ended := cli("dead edit id-1 --set cents=5 --json")).code == 1, "two have this id"
    assert ended.json == none
    assert cli("dead drop id-1 --all-copies --yes").code == 0
    assert (ended := cli("dead edit id-1 --set cents=5 --json")).code == 1
    assert ended.json == none


def test_letters_with_one_id_are_replayed_together_or_not_at_all(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker
) -> None:
    letters.add(2)
    letters.add(1, 2, message_id="id-0")
    ended = cli("dead replay id-0 id-1 --yes")
    assert ended.code == 1
    assert "Several dead letters have the id 'id-0': 2 in billing.dead." in ended.err
    assert vhost.count(DEAD) == 3
    assert cli("dead replay id-0 --yes --all-copies --json").json == [{"name": "id-0", "letters": 2}]
    assert vhost.ids(DEAD) == ["id-1"]


def test_a_letter_whose_queue_is_gone_stays_and_can_be_replayed_to_another(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker
) -> None:
    letters.add(2)
    vhost.delete_queue(WORK)
    ended = cli("dead replay --all --yes")
    assert ended.code == 1
    assert (
        "2 dead letters not replayed: Queue 'billing', to which letters are to be replayed, does not exist" in ended.err
    )
    assert vhost.ids(DEAD) == ["id-0", "id-1"]
    assert vhost.count(PARKED) == 0
    assert "Queue 'typo', to which" in cli("dead replay --all --yes --to typo").complaint()
    assert cli("dead replay --all --yes --to notes").code == 0
    assert vhost.ids("notes") == ["id-0", "id-1"]


def test_letters_are_not_replayed_to_where_no_message_goes(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker
) -> None:
    letters.add(2)
    for to in ("notes.dead", "notes.due", PARKED):
        ended = cli(f"dead replay --all --yes --to {to}")
        assert (ended.code, ended.out) == (2, "")
        assert "Queue name" in ended.complaint()
    vhost.declare_queue("unbound")
    ended = cli("dead replay id-0 --to unbound")
    assert (ended.code, ended.out) == (0, "1 dead letter replayed.\n")
    assert ended.complaint().startswith("Warning: 1 message more in 'amqpworker.parked' than expected")
    again = cli("dead replay id-0 --to unbound --parked")
    assert again.complaint().startswith("Warning: 1 message more in 'amqpworker.parked' than expected")
    moved = cli("dead replay id-0 --parked --to billing")
    assert (moved.code, moved.err, vhost.ids(WORK)) == (0, "", ["id-0"])
    for rate in ("nan", "inf"):
        ended = cli(f"dead replay id-1 --rate {rate}")
        assert (ended.code, ended.out, vhost.ids(DEAD)) == (2, "", ["id-1"])
        assert "rate" in ended.complaint()


def test_parked_messages_have_the_same_verbs(cli: Callable[[str], Ended], letters: Letters, vhost: Broker) -> None:
    letters.add(3, exchange=PARKED)
    assert sum(one["count"] for one in cli("dead list --json").json) == 3
    assert "Parked messages need --parked" in cli("dead replay id-0").err
    assert cli("dead show id-0").code == 0
    assert cli("dead replay id-0 --parked").code == 0
    assert vhost.ids(WORK) == ["id-0"]
    assert cli("dead drop --all --parked --yes").out == "2 dead letters dropped.\n"
    assert vhost.count(PARKED) == 0


def test_a_letter_that_a_shovel_moved_is_replayed_to_the_queue_that_it_died_in(
    cli: Callable[[str], Ended], shop: App, vhost: Broker
) -> None:
    assert vhost.publish("", DEAD, b"{}", pika.BasicProperties(message_id="moved"))
    assert cli("dead replay moved").code == 0
    assert vhost.ids(WORK) == ["moved"]
    assert vhost.publish("", PARKED, b"{}", pika.BasicProperties(message_id="lost"))
    ended = cli("dead replay lost --parked")
    assert ended.code == 1
    assert "It is not known in which queue 'lost' was: name the one to replay it to." in ended.err
    assert vhost.count(PARKED) == 1


def test_a_rate_is_kept_over_several_walks_and_what_dies_again_is_left_alone(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters.add(12)
    monkeypatch.setattr(letter_walks, "WALK_SECONDS", 0.1)
    began = time.monotonic()
    with running(load_app("deadworker:app"), threads=1):
        vhost.wait_for_count(WORK, 0)
        ended = cli("dead replay --all --yes --rate 10 --json")
    assert ended.json[0] == {"queue": DEAD, "letters": 12}
    assert 0.8 < time.monotonic() - began < 8


def test_what_dies_again_in_another_queue_meanwhile_is_not_replayed_again(
    cli: Callable[[str], Ended], shop: App, vhost: Broker
) -> None:
    with running(load_app("deadworker:app"), threads=2):
        for number in range(40):
            shop.tasks["shop.charge"].send(f"o-{number}", cents=-1)
        vhost.wait_for_count(DEAD, 40)
        # Half of them a second after the others, which are in notes.dead by then; that is read last.
        ended = cli("dead replay --task shop.charge --to notes --yes --json --rate 20")
        assert ended.json == [{"queue": DEAD, "letters": 40}, {"queue": "notes.dead", "letters": 0}]
        vhost.wait_for_count("notes.dead", 40)


# ---- drop ---------------------------------------------------------------------------------------------------------------


def test_letters_are_dropped_by_age_and_reason(cli: Callable[[str], Ended], letters: Letters, vhost: Broker) -> None:
    letters.add(3)
    now = datetime.now(UTC)
    letters.add(1, 3, headers={"aw-dead-reason": "failed", "aw-failed-at": now.isoformat()})
    letters.add(1, 4, headers={"aw-dead-reason": "expired", "aw-failed-at": now.isoformat()})
    assert cli("dead drop --reason expired --yes").out == "1 dead letter dropped.\n"
    assert cli("dead drop --older-than 1h --yes").out.endswith(f" {'letters' if now > AT else 'letter'} dropped.\n")
    assert vhost.ids(DEAD) == ["id-3"]
    assert "--older-than 'long'" in cli("dead drop --older-than long").complaint()
    assert "before the year 1" in cli("dead drop --older-than 800000d").complaint()


def test_a_question_is_asked_before_several_letters_are_dropped(
    letters: Letters, vhost: Broker, tmp_path: Path
) -> None:
    letters.add(2)
    for answer, code, left in (("n\n", 1, 2), ("y\n", 0, 0)):
        ours, theirs = pty.openpty()
        with started(tmp_path, dict(os.environ), "dead", "drop", "--all", stdin=theirs) as process:
            os.write(ours, answer.encode())
            out, err = process.communicate(timeout=30)
        os.close(ours)
        os.close(theirs)
        assert "billing.dead: 2 dead letters in 1 group" in out
        assert "Drop 2 dead letters?" in err
        assert "?" not in out
        assert process.returncode == code
        assert vhost.count(DEAD) == left


def test_the_question_is_all_that_a_person_sees_before_json(letters: Letters, tmp_path: Path) -> None:
    letters.add(2)
    ours, theirs = pty.openpty()
    with started(tmp_path, dict(os.environ), "dead", "drop", "--all", "--json", stdin=theirs) as process:
        os.write(ours, b"y\n")
        out, err = process.communicate(timeout=30)
    os.close(ours)
    os.close(theirs)
    assert json.loads(out)[0] == {"queue": DEAD, "letters": 2}
    assert err.startswith("Drop 2 dead letters? [y/N]")


# ---- files --------------------------------------------------------------------------------------------------------------


def test_letters_are_exported_by_their_ids(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker, tmp_path: Path
) -> None:
    letters.add(3)
    assert cli("dead export one id-1").out == "1 dead letter exported to one; they stay in their queues.\n"
    assert json.loads((tmp_path / "one").read_text())["name"] == "id-1"
    some = cli("dead export some id-2 nope --json")
    assert (some.code, some.json) == (1, [{"name": "id-2", "letters": 1}, {"name": "nope", "letters": 0}])
    assert "No dead letter with the id 'nope'" in some.err
    none = cli("dead export none nope --json")
    assert (none.code, none.json) == (1, [{"name": "nope", "letters": 0}])
    assert not (tmp_path / "none").exists(), "nothing was found"
    letters.add(1, 3, message_id="id-1")
    assert cli("dead export both id-1 --json").json == [{"name": "id-1", "letters": 2}]
    assert "--all does not go together" in cli("dead export all id-1 --all").complaint()
    assert vhost.count(DEAD) == 4


def test_exported_letters_are_the_same_after_they_were_imported(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker, tmp_path: Path
) -> None:
    ids = letters.add(3)
    before = [cli(f"dead show {one} --json").json[0] for one in ids]
    ended = cli("dead export letters.jsonl")
    assert ended.out == "3 dead letters exported to letters.jsonl; they stay in their queues.\n"
    assert vhost.count(DEAD) == 3
    file = tmp_path / "letters.jsonl"
    assert file.stat().st_mode & 0o077 == 0, "only its user may read the arguments"
    assert [json.loads(line)["name"] for line in file.read_text().splitlines()] == ids
    assert "letters.jsonl exists already" in cli("dead export letters.jsonl").complaint()
    assert os.listdir(tmp_path).count("letters.jsonl") == 1
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".letters")]
    assert cli("dead drop --all --yes").code == 0
    assert cli("dead import letters.jsonl").out == "3 dead letters imported.\n"
    after = [cli(f"dead show {one} --json").json[0] for one in ids]
    for one in (*before, *after):
        del one["redelivered"]
        one["headers"].pop("x-delivery-count", None)
    assert after == before


def test_what_the_pipe_carries_can_be_imported(letters: Letters, vhost: Broker, tmp_path: Path) -> None:
    letters.add(2)
    env = dict(os.environ)
    program = f"{sys.executable} -m amqpworker dead"
    line = f"{program} export - --reason failed | tee copy | {program} import -"
    done = subprocess.run(
        line, shell=True, cwd=tmp_path, env=env, text=True, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 dead letters imported.\n", "")
    assert Counter(vhost.ids(DEAD)) == {"id-0": 2, "id-1": 2}
    letters.add(400, 2)
    line = f"{program} export - | head -c 10 >/dev/null; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=env, text=True, capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("amqpworker: The program that reads the pipe has ended")
    assert len(done.stderr.splitlines()) == 1
    vhost.wait_for_count(DEAD, 404)


def test_a_full_disk_is_one_line_and_what_cannot_be_read_twice_is_imported(
    letters: Letters, vhost: Broker, tmp_path: Path
) -> None:
    letters.add(2)
    program = f"{sys.executable} -m amqpworker dead"

    def shell(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", "-c", line], cwd=tmp_path, text=True, capture_output=True, check=False)

    full = shell(f"{program} export - --all > /dev/full")
    assert (full.returncode, full.stderr) == (
        2,
        "amqpworker: Cannot write to standard output: No space left on device.\n",
    )
    done = shell(f"{program} export - > copy; {program} import <(cat copy)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 dead letters imported.\n", "")
    vhost.wait_for_count(DEAD, 4)


def test_nothing_of_a_file_that_was_cut_off_is_imported(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker, tmp_path: Path
) -> None:
    letters.add(2)
    cli("dead export whole")
    text = (tmp_path / "whole").read_text()
    (tmp_path / "cut").write_text(text[:-20])
    ended = cli("dead import cut")
    assert ended.code == 2
    assert ended.complaint() == "Line 2 is not JSON: the file may have been cut off."
    (tmp_path / "other").write_text(text.replace(DEAD, "billing"))
    assert "Line 1: 'billing' is not a dead-letter queue" in cli("dead import other").complaint()
    (tmp_path / "gone").write_text(text.replace(DEAD, "gone.dead"))
    assert "Queue 'gone.dead' does not exist" in cli("dead import gone").complaint()
    assert "Cannot read nothing: No such file" in cli("dead import nothing").complaint()
    assert vhost.count(DEAD) == 2


# ---- edit ---------------------------------------------------------------------------------------------------------------


def test_an_edited_letter_stays_with_its_evidence_until_it_is_replayed(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker
) -> None:
    letters.add(2)
    ended = cli("dead edit id-0 --set cents=5 --set order=7")
    assert (ended.code, ended.out) == (0, "1 dead letter changed; `dead replay` runs it.\n")
    assert vhost.ids(DEAD) == ["id-1", "id-0"]
    (whole,) = cli("dead show id-0 --json").json
    assert whole["body"] == {"order": "7", "cents": 5}
    assert (whole["error"], whole["attempt"]) == ("no order 0", 3)
    assert cli("dead edit id-1 --set cents=6 --replay").out == "1 dead letter changed and replayed.\n"
    assert json.loads(vhost.wait_for_message(WORK).body) == {"order": "o-1", "cents": 6}
    assert vhost.ids(DEAD) == ["id-0"]


def test_of_several_letters_with_an_id_only_those_with_the_same_task_and_arguments_are_edited(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker
) -> None:
    letters.add(1)
    letters.add(1, 0)
    letters.add(1, 1, message_id="id-0")
    letters.add(1, 0, type="shop.note")
    ended = cli("dead edit id-0 --set cents=5 --all-copies")
    assert (ended.code, ended.out) == (1, "2 dead letters changed; `dead replay` runs them.\n")
    assert "2 dead letters not changed: It has another task or other arguments: it stays." in ended.complaint()
    bodies = [(one["task"], one["body"]) for one in cli("dead show id-0 --json").json]
    assert bodies == [
        ("shop.charge", {"order": "o-1"}),
        ("shop.note", {"order": "o-0"}),
        ("shop.charge", {"order": "o-0", "cents": 5}),
        ("shop.charge", {"order": "o-0", "cents": 5}),
    ]


def test_an_edit_that_stops_after_its_letter_was_published_is_not_reported_as_no_change(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    letters.add(1)

    def lost(*_: object) -> None:
        raise NotConnected("lost")

    monkeypatch.setattr(Walk, "remove", lost)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("EDITOR", "sed -i s/o-0/new/")
    ended = cli("dead edit id-0")
    assert (ended.code, ended.out) == (2, "")
    assert "Stopped: it is not known what changed; a letter whose copy was not confirmed may exist twice." in ended.err
    assert "Nothing was changed" not in ended.err
    (kept,) = tmp_path.glob("amqpworker-*")
    assert f"The edited text is in {kept}." in ended.err
    vhost.wait_for_count(DEAD, 2)


def test_an_edit_can_be_made_at_another_broker_than_the_one_of_the_app(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters.add(1)
    monkeypatch.setenv("AMQPWORKER_URL", "amqp://127.0.0.1:1/")
    assert cli(f"dead edit id-0 --set cents=5 --replay --url {vhost.url}").code == 0
    assert json.loads(vhost.wait_for_message(WORK).body) == {"order": "o-0", "cents": 5}


@pytest.mark.parametrize(
    ("line", "code", "problem"),
    [
        ("id-0 --set cents=much", 2, "parameter 'cents'"),
        ("id-0 --set colour=1", 2, "colour"),
        ("nope --set cents=1", 1, "No dead letter with the id 'nope'"),
        ("id-1 --set cents=1", 2, "The app has no task 'shop.chrge' (did you mean shop.charge?)"),
    ],
)
def test_an_edit_that_does_not_fit_changes_nothing(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker, line: str, code: int, problem: str
) -> None:
    letters.add(1)
    letters.add(1, 1, type="shop.chrge")
    ended = cli(f"dead edit {line}")
    assert ended.code == code
    assert problem in ended.err
    assert vhost.ids(DEAD) == ["id-0", "id-1"]


def test_an_edit_that_changes_nothing_reports_that(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker
) -> None:
    letters.add(1)
    ended = cli("dead edit id-0 --set order=o-0 --replay --json")
    assert (ended.code, ended.json) == (1, [{"name": "id-0", "letters": 0}])
    assert ended.complaint().startswith("Nothing was changed: it has these arguments already.")
    assert cli("dead replay --task nope --dry-run").out == "Nothing was done: no dead letter is selected.\n"
    assert (vhost.ids(DEAD), vhost.count(WORK)) == (["id-0"], 0)


def test_arguments_are_edited_in_the_users_editor_and_the_text_is_kept_if_it_does_not_fit(
    cli: Callable[[str], Ended], letters: Letters, vhost: Broker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    letters.add(1)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("EDITOR", "sed -i s/o-0/new/")
    assert cli("dead edit id-0").code == 0
    assert cli("dead show id-0 --json").json[0]["body"] == {"order": "new"}
    assert not list(tmp_path.glob("amqpworker-*"))
    monkeypatch.setenv("EDITOR", "sed -i s/order/other/")
    ended = cli("dead edit id-0")
    assert ended.code == 2
    (kept,) = tmp_path.glob("amqpworker-*")
    assert str(kept) in ended.err
    assert json.loads(kept.read_text()) == {"other": "new"}
    monkeypatch.setenv("EDITOR", "true")
    assert cli("dead edit id-0").err == "amqpworker: Nothing was changed.\n"
    monkeypatch.setenv("EDITOR", "/no/such/editor")
    assert "cannot be started" in cli("dead edit id-0").complaint()
    assert vhost.count(DEAD) == 1


# ---- in Python ----------------------------------------------------------------------------------------------------------


def test_letters_are_listed_and_replayed_in_one_loop(shop: App, letters: Letters, vhost: Broker) -> None:
    letters.add(4)
    replayed: dict[str, int] = {}
    for letter in shop.dead.list(task="shop.charge"):
        if letter.error.endswith(("1", "3")):
            replayed |= shop.dead.replay(letter.name)
    assert replayed == {"id-1": 1, "id-3": 1}
    assert vhost.ids(WORK) == ["id-1", "id-3"]
    assert shop.dead.drop("id-0", "nope") == {"id-0": 1, "nope": 0}
    assert [letter.id for letter in shop.dead.list(queue="billing", reason="failed", older_than=1)] in (["id-2"], [])
    assert list(shop.dead.list(group="00000000")) == []


def test_what_is_parked_in_place_of_a_replay_is_a_warning_in_python_too(
    shop: App, letters: Letters, vhost: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    letters.add(2)
    with raw_channel(vhost.url) as channel:
        channel.queue_unbind(WORK, "amqpworker.due", WORK)
    assert shop.dead.replay("id-0") == {"id-0": 1}
    assert "letters_parked" in caplog.text
    assert "messages=1" in caplog.text
    assert vhost.count(PARKED) == 1
    caplog.clear()
    assert shop.dead.replay("id-0", parked=True, to="notes") == {"id-0": 1}
    assert "letters_parked" not in caplog.text


def test_what_cannot_be_done_in_python_raises(shop: App, letters: Letters, vhost: Broker) -> None:
    letters.add(1)
    letters.add(1, 1, message_id="id-0")
    with pytest.raises(InvalidArguments, match=r"Several dead letters have one id: 'id-0' \(2\)"):
        shop.dead.replay("id-0")
    with pytest.raises(InvalidArguments, match="rate=0"):
        shop.dead.replay("id-0", rate=0)
    with pytest.raises(InvalidArguments, match="rate=inf"):
        shop.dead.replay("id-0", rate=math.inf)
    with pytest.raises(ConfigError, match="reserved for amqpworker"):
        shop.dead.replay("id-0", all_copies=True, to=PARKED)
    with pytest.raises(ConfigError, match="'nope'"):
        shop.dead.replay("id-0", all_copies=True, to="nope")
    with pytest.raises(ConfigError, match=r"'nope\.dead' does not exist"):
        list(shop.dead.list(queue="nope"))
    vhost.delete_queue(WORK)
    with pytest.raises(InvalidArguments, match="2 of the dead letters stay"):
        shop.dead.replay("id-0", all_copies=True)
    assert vhost.count(DEAD) == 2
    assert shop.dead.drop("id-0", all_copies=True) == {"id-0": 2}


# ---- the page ---------------------------------------------------------------------------------------------------------


def test_the_commands_of_the_page_print_what_it_shows(
    capsys: pytest.CaptureFixture[str], letters: Letters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "billing.py").write_text(SHOP)
    monkeypatch.delitem(sys.modules, "billing", raising=False)
    monkeypatch.delenv("AMQPWORKER_APP")
    letters.add(3, 1)
    shown = [one for one in commands(ROOT / "docs/operations.md") if one.line.startswith("amqpworker dead ")]
    assert len(shown) == 7
    for command in shown:
        ended = run_here(capsys, *command.line.split()[1:])
        assert (ended.code, ended.err) == (0, ""), command.line
        assert command.prints(ended.out), f"{command.line} printed {ended.out!r}, not {command.output!r}"


# ---- exactly one place --------------------------------------------------------------------------------------------------


def test_two_operators_who_replay_at_once_replay_each_letter_once(
    letters: Letters, vhost: Broker, tmp_path: Path
) -> None:
    ids = letters.add(2000)
    env = environment(vhost.url)
    line = ("dead", "replay", "--all", "--yes", "-q", "billing", "--json")
    with started(tmp_path, env, *line) as one, started(tmp_path, env, *line) as other:
        ends = [process.communicate(timeout=60) for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0), ends
    assert sum(json.loads(out)[0]["letters"] for out, _ in ends) == 2000
    vhost.wait_for_count(DEAD, 0)
    # The first letters may change places if both subscribe in the same moment.
    assert Counter(vhost.drain(WORK)) == Counter(ids)


def test_what_one_operator_drops_while_another_one_replays_is_in_one_place_or_none(
    letters: Letters, vhost: Broker, shop: App
) -> None:
    ids = letters.add(600)
    dropped: dict[str, int] = {}
    other = threading.Thread(target=lambda: dropped.update(shop.dead.drop(*ids[:100])))
    other.start()
    replayed = shop.dead.replay(*ids[50:])
    other.join()
    left = Counter(vhost.drain(WORK))
    assert all(left[one] == replayed.get(one, 0) for one in ids)
    assert all(dropped.get(one, 0) + left[one] == 1 for one in ids)
    vhost.wait_for_count(DEAD, 0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_replay_that_ends_in_the_middle_loses_no_letter_and_doubles_at_most_one_batch(
    letters: Letters, vhost: Broker, tmp_path: Path, number: signal.Signals
) -> None:
    ids = letters.add(4000)
    line = ("dead", "replay", "--all", "--yes", "-q", "billing", "--rate", "1500")
    with started(tmp_path, environment(vhost.url), *line) as process:
        wait_until(lambda: vhost.count(WORK) >= 500, timeout=30, what="some are replayed")
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode in {-signal.SIGKILL, 130}, "it was still running"
    wait_until(lambda: vhost.consumers(DEAD) == 0, what="what it had received is requeued")
    replayed, rest = vhost.drain(WORK), vhost.drain(DEAD)
    assert rest == ids[-len(rest) :], "in their order"
    assert replayed == ids[: len(replayed)]
    doubled = len(replayed) + len(rest) - len(ids)
    assert 0 <= doubled <= 500
    if number is signal.SIGINT:
        assert doubled == 0
        assert f"Stopped: {len(replayed)} dead letters had been replayed; all others stay." in err
