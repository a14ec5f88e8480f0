"""`send`, `call` and `topology` against a real broker, and what the tools use."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from amqpworker import Settings
from amqpworker.broker.admin import Admin
from amqpworker.errors import NotConnected
from amqpworker.worker.app_loader import load_app
from tests.cli import Ended, run_here
from tests.nodes import Node
from tests.support import Broker, milliseconds, raw_channel, wait_until
from tests.workers import running

SHOP = """
from amqpworker import App, Reject, current
app = App()

@app.task(name="shop.welcome", queue="emails", retry=None)
def welcome(user_id: int, lang: str = "en") -> dict[str, str]:
    if user_id == 0:
        raise Reject("unknown user")
    if user_id < 0:
        raise ValueError("no such user: " + lang)
    return {"greeting": f"{lang} {user_id}"}

@app.task(name="shop.has_time", queue="emails", time_limit=10)
def has_time(seconds: float) -> bool:
    return seconds < (current().time_left or 0)
"""


@pytest.fixture
def shop(vhost: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with an app whose broker is the test's, by the environment."""
    for name in ("clishop", "workershop"):
        (tmp_path / f"{name}.py").write_text(SHOP)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("AMQPWORKER_URL", vhost.url)
    return "clishop:app"


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], shop: str) -> Callable[[str], Ended]:
    return lambda line: run_here(capsys, *line.split())


@pytest.fixture
def worker(shop: str) -> Iterator[None]:
    """Run the shop's tasks, on an app of its own: the commands close theirs."""
    with running(load_app("workershop:app"), threads=2):
        yield


# ---- send and call ----------------------------------------------------------------------------------------------------


def test_send_with_an_app_declares_the_tasks_queue_and_sends_what_the_signature_makes_of_it(
    cli: Callable[[str], Ended], vhost: Broker
) -> None:
    ended = cli(
        "send shop.welcome user_id=42 --app clishop:app --header tenant=acme --id my-id --expires 60 "
        "--time-limit 10m --hard-limit 15.5m"
    )
    assert ended == Ended(0, "my-id\n", "")
    message = vhost.wait_for_message("emails")
    assert json.loads(message.body) == {"user_id": 42}
    assert message.properties.type == "shop.welcome"
    assert message.properties.message_id == "my-id"
    assert message.headers["tenant"] == "acme"
    assert (message.headers["aw-time-limit"], message.headers["aw-hard-limit"]) == (600, 930)


def test_send_without_an_app_sends_the_body_as_it_is(cli: Callable[[str], Ended], vhost: Broker) -> None:
    vhost.management.request("PUT", "exchanges", vhost.vhost, "amqpworker.tasks", body={"type": "direct"})
    vhost.declare_queue("other")
    vhost.management.request(
        "POST", "bindings", vhost.vhost, "e", "amqpworker.tasks", "q", "other", body={"routing_key": "other"}
    )
    told = cli('send a.b -q other --json --body {"n":1,"s":"ü"}').json
    message = vhost.wait_for_message("other")
    assert told == {"id": message.properties.message_id, "task": "a.b"}
    assert message.body == '{"n":1,"s":"ü"}'.encode()


def test_send_to_a_queue_that_is_not_there_exits_with_1(cli: Callable[[str], Ended]) -> None:
    cli("topology declare clishop:app")
    ended = cli("send a.b -q typo x=1")
    assert "No queue is bound to exchange" in ended.complaint()
    assert ended.code == 1


def test_send_with_a_delay_goes_through_the_ladder(cli: Callable[[str], Ended], vhost: Broker) -> None:
    assert cli("send shop.welcome user_id=1 --app clishop:app --delay 0.2").code == 0
    message = vhost.wait_for_message("emails")
    assert milliseconds(message.headers["aw-eta"]) >= milliseconds(message.headers["aw-first-sent"]) + 200
    assert message.headers["x-death"][0]["reason"] == "expired"


def test_call_prints_the_value_as_json(cli: Callable[[str], Ended], worker: None) -> None:
    assert cli("call shop.welcome user_id=7 --app clishop:app").json == {"greeting": "en 7"}
    assert cli("call shop.welcome user_id=7 lang=fr -q emails").json == {"greeting": "fr 7"}


def test_a_call_has_the_time_limits_of_the_command_line_in_place_of_the_task_s(
    cli: Callable[[str], Ended], worker: None
) -> None:
    assert cli("call shop.has_time seconds=20 --app clishop:app").json is False
    assert cli("call shop.has_time seconds=20 --app clishop:app --time-limit 60").json is True
    assert cli("call shop.has_time seconds=20 -q emails --time-limit 1m --hard-limit 90").json is True


def test_a_call_of_a_task_that_fails_shows_its_traceback_and_exits_with_1(
    cli: Callable[[str], Ended], worker: None
) -> None:
    ended = cli("call shop.welcome user_id=-7 --app clishop:app")
    assert ended.code == 1
    assert ended.out == ""
    assert "Traceback" in ended.err
    assert ended.err.splitlines()[-1] == "amqpworker: The task ended as 'failed': ValueError: no such user: en"


def test_a_call_without_a_reply_exits_with_1(cli: Callable[[str], Ended]) -> None:
    ended = cli("call shop.welcome user_id=7 --app clishop:app --timeout 0.3")
    assert "did not reply within 0.3 s" in ended.complaint()
    assert ended.code == 1


@pytest.mark.parametrize("line", ["send t -q q", "call t -q q", "dead list -q q", "topology declare clishop:app"])
@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (lambda url: url.replace("guest:guest", "guest:wrong"), "refused the login of user 'guest'"),
        (lambda url: f"{url}-not", "has no virtual host"),
    ],
)
def test_a_refused_login_or_virtual_host_is_one_line_with_exit_code_2(
    cli: Callable[[str], Ended], vhost: Broker, monkeypatch: pytest.MonkeyPatch, line: str, broken: Any, told: str
) -> None:
    monkeypatch.setenv("AMQPWORKER_URL", broken(vhost.url))
    ended = cli(line)
    assert told in ended.complaint()
    assert "wrong" not in ended.err
    assert ended.code == 2


# ---- topology ---------------------------------------------------------------------------------------------------------


def test_topology_declare_makes_everything_and_can_be_repeated(cli: Callable[[str], Ended], vhost: Broker) -> None:
    first, second = cli("topology declare clishop:app"), cli("topology declare clishop:app")
    assert first == second == Ended(0, "36 exchanges, 36 queues, 38 bindings: declared.\n", "")
    assert len(vhost.queues()) == 36
    assert cli("topology check clishop:app").code == 0


def test_topology_declare_names_the_argument_that_is_in_the_way(cli: Callable[[str], Ended], vhost: Broker) -> None:
    vhost.declare_queue("emails", x_delivery_limit=7)
    ended = cli("topology declare clishop:app")
    assert ended.code == 2
    assert re_all(ended.complaint(), "'emails'", "x-", "but amqpworker declares")


def re_all(text: str, *parts: str) -> bool:
    return all(part in text for part in parts)


def test_topology_check_finds_what_is_missing_and_changes_nothing(cli: Callable[[str], Ended], vhost: Broker) -> None:
    ended = cli("topology check clishop:app --json")
    assert ended.code == 1
    assert {one["kind"] for one in ended.json["findings"]} == {"missing"}
    assert len(ended.json["findings"]) == 36 + 36
    assert vhost.queues() == []


@pytest.mark.parametrize(
    ("queue", "argument", "there", "wanted"),
    [
        ("emails", "x-delivery-limit", 7, 200),
        ("emails", "x-overflow", "drop-head", "reject-publish"),
        ("emails", "x-dead-letter-exchange", "elsewhere", "amqpworker.dead"),
        ("amqpworker.delay.03", "x-message-ttl", 5000, 1000),
    ],
)
def test_topology_check_names_the_argument_that_differs_and_both_values(
    cli: Callable[[str], Ended], vhost: Broker, shop: str, queue: str, argument: str, there: object, wanted: object
) -> None:
    arguments = next(one.arguments for one in load_app(shop).plan.whole().queues if one.name == queue)
    vhost.management.declare_queue(vhost.vhost, queue, {**arguments, argument: there})
    ended = cli("topology check clishop:app --json")
    assert ended.code == 1
    (told,) = [one["text"] for one in ended.json["findings"] if one["kind"] == "differs"]
    assert told.startswith(f"The queue {queue!r} in vhost")
    assert f"{argument} = '{there}'" in told
    assert f"'{wanted}'" in told


def test_topology_check_by_the_management_api_finds_policies_and_missing_bindings(
    cli: Callable[[str], Ended], vhost: Broker
) -> None:
    cli("topology declare clishop:app")
    command = f"topology check clishop:app --management {vhost.node.management_url}"
    assert cli(command).code == 0
    vhost.management.set_policy(vhost.vhost, "short", "^emails$", {"message-ttl": 1000, "overflow": "drop-head"})
    with raw_channel(vhost.url) as channel:
        channel.queue_unbind("emails", "amqpworker.due", "emails")

    def found() -> dict[str, Any] | None:
        ended = cli(f"{command} --json")
        kinds = {one["kind"]: one["text"] for one in ended.json["findings"]}
        return kinds if ended.code == 1 and {"policy", "unbound"} <= kinds.keys() else None

    # a policy reaches the queue, and the API, some moments after it was set
    kinds = wait_until(found)
    assert kinds is not None
    assert "'short'" in kinds["policy"]
    assert "'amqpworker.due'" in kinds["unbound"]
    ended = cli(command)
    assert max(map(len, ended.out.splitlines())) <= 80
    assert "message-ttl = 1000" in " ".join(ended.out.split())


@contextmanager
def user(vhost: Broker, monkeypatch: pytest.MonkeyPatch, **rights: str) -> Iterator[str]:
    """Have the commands log in as a user with these permissions; yield its name."""
    name = f"{vhost.vhost}-few"
    vhost.management.create_user(name, "few")
    try:
        vhost.management.set_permissions(
            vhost.vhost, name, **{"configure": "^$", "write": "^$", "read": "^$", **rights}
        )
        monkeypatch.setenv("AMQPWORKER_URL", vhost.node.url(vhost.vhost, name, "few"))
        monkeypatch.delitem(sys.modules, "clishop")
        yield name
    finally:
        vhost.management.delete_user(name)


def test_topology_check_without_permission_to_compare_is_one_line_and_exits_with_2(
    cli: Callable[[str], Ended], vhost: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("topology declare clishop:app")
    with user(vhost, monkeypatch) as name:
        ended = cli("topology check clishop:app --json")
        assert ended.code == 2
        assert {one["kind"] for one in ended.json["findings"]} == {"unknown"}
        assert len(ended.json["findings"]) == 36 + 36
        ended = cli("topology check clishop:app")
        assert ended.code == 2
        assert ended.out.count("unknown") == 1
        told = " ".join(ended.out.split())
        assert (
            f"72 of 72 exchanges and queues could not be compared: user '{name}' lacks the permission `configure`"
            in told
        )
        assert "run it as the user that declares" in told
        assert told.count("amqpworker.") == 0
        assert max(map(len, ended.out.splitlines()[:4])) <= 80


# ---- the client underneath --------------------------------------------------------------------------------------------


def stopped(pid: int) -> bool:
    """Return whether every thread of a process is stopped, which takes a moment."""
    states = [stat.read_text().rpartition(")")[2].split()[0] for stat in Path("/proc").glob(f"{pid}/task/*/stat")]
    return set(states) == {"T"}


def test_a_tool_does_not_wait_longer_than_its_timeout_for_an_answer(spare_node: Node) -> None:
    with Admin(spare_node.url(), Settings(), timeout=0.5) as admin:
        os.kill(spare_node.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: stopped(spare_node.pid))
            with pytest.raises(NotConnected, match=r"within 0\.5 s"):
                admin.depth("some")
        finally:
            os.kill(spare_node.pid, signal.SIGCONT)


def test_a_tool_continues_after_its_connection_was_closed(vhost: Broker) -> None:
    vhost.declare_queue("some")
    with Admin(vhost.url, Settings()) as admin:
        assert admin.depth("some") == (0, 0)
        vhost.close_connections()
        wait_until(lambda: depth_of(admin, "some") == (0, 0))


def depth_of(admin: Admin, queue: str) -> tuple[int, int] | None:
    """Ask for the depth; None while the connection is being made again."""
    try:
        return admin.depth(queue)
    except NotConnected:
        return None


def test_nothing_stays_open_behind_a_tool(vhost: Broker) -> None:
    before = {thread.name for thread in threading.enumerate()}
    with Admin(vhost.url, Settings()) as admin:
        assert admin.depth("none") is None
    assert {thread.name for thread in threading.enumerate()} == before
