"""The app itself: what it is called, what it takes as a task, and what is left open when it is closed."""

from __future__ import annotations

import copy
import enum
import os
import pickle
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from amqpworker import App
from amqpworker.client.sent import NO_ORIGIN, Origin, Sent
from amqpworker.errors import ConfigError, InvalidArguments
from amqpworker.model.reply import encode_done
from amqpworker.results.row import ResultRow

LATER = 4_000_000_000.0


def open_files(folder: Path) -> list[str]:
    """Return the files in a folder that this process has open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except OSError:
            continue
        if target.startswith(f"{folder}/"):
            found.append(target)
    return found


def row(task_id: str, value: bytes, first_sent: str = "") -> ResultRow:
    return ResultRow(task_id, "done", "shop.task", encode_done(value), first_sent, 0.0, LATER)


def test_closing_an_app_leaves_nothing_of_its_results_open(tmp_path: Path) -> None:
    with App("amqp://127.0.0.1:1/", results=f"sqlite:///{tmp_path}/results.db") as app:
        store = app.store()
        assert store is not None
        store.put([row("a", b"1")])
        sent = Sent[int]("a", "shop.task", Origin(app.stored_results, int))
        assert sent.result() == 1
        assert open_files(tmp_path)
    assert open_files(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["results.db"]
    assert sent.result() == 1, "it is opened anew"
    store.put([row("b", b"2")])
    app.close()
    assert open_files(tmp_path) == []


def test_a_result_is_that_of_the_message_that_was_sent(tmp_path: Path) -> None:
    app = App("amqp://127.0.0.1:1/", results=f"sqlite:///{tmp_path}/results.db")
    store = app.store()
    assert store is not None
    first, second = (Sent[int]("a", "shop.task", Origin(app.stored_results, int), number) for number in (1000, 2000))
    store.put([row("a", b"1", "1970-01-01T00:00:01.000Z")])
    assert first.result(timeout=0) == 1
    assert second.status().state == "pending"
    assert first != second
    store.put([row("a", b"2", "1970-01-01T00:00:02.000Z"), row("a", b"1", "1970-01-01T00:00:01.000Z")])
    assert second.result(timeout=0) == 2
    assert first.status().state == "pending", "the id was used again"
    assert pickle.loads(pickle.dumps(first)) == first
    app.close()


def test_a_result_that_has_expired_or_that_has_no_reply_yet_is_pending(tmp_path: Path) -> None:
    app = App("amqp://127.0.0.1:1/", results=f"sqlite:///{tmp_path}/results.db")
    store = app.store()
    assert store is not None
    sent = Sent[int]("a", "shop.task", Origin(app.stored_results, int))
    store.put([row("a", b"1")._replace(expires_at=time.time() - 1)])
    assert sent.status().state == "pending"
    store.put([row("a", b"1")._replace(state="running", reply=b"")])
    assert sent.status().state == "pending"
    app.close()


def test_asking_for_the_result_of_a_task_that_stores_none_is_refused_at_once(tmp_path: Path) -> None:
    app = App("amqp://127.0.0.1:1/", results=f"sqlite:///{tmp_path}/results.db")

    @app.task(name="note", result=False)
    def note() -> None: ...

    sent = app._sent(note.message())
    for ask in (sent.result, sent.status):
        with pytest.raises(ConfigError, match="result=False"):
            ask()


def test_an_app_whose_results_were_not_used_opens_no_file_to_close_it(tmp_path: Path) -> None:
    App("amqp://127.0.0.1:1/", results=f"sqlite:///{tmp_path}/results.db").close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["http://x", "", "localhost:5672", "amqp://host:none/", "amqp://host/?heartbeat=5"])
def test_a_url_that_cannot_be_read_is_refused_when_the_app_is_made(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    with pytest.raises(ConfigError, match=r"^The URL of the broker "):
        App(url)
    monkeypatch.setenv("AMQPWORKER_URL", url or "http://x")
    with pytest.raises(ConfigError, match=r"^The URL of the broker "):
        App()


@pytest.mark.parametrize("name", ["", "\ud800", "ä\udc80", "a" * 256, "é" * 128, 5, b"shop.task"])
def test_a_name_that_no_message_can_carry_is_refused_where_the_task_is_made(name: Any) -> None:
    app = App("amqp://127.0.0.1:1/")

    def work() -> None: ...

    told = r"^Task name must be a string of 1 to 255 bytes of UTF-8, got .{1,60}\.$"
    with pytest.raises(ConfigError, match=told):
        app.task(name=name)(work)
    with pytest.raises(ConfigError, match=told):
        app.remote(name=name)(work)
    with pytest.raises(ConfigError, match=told):
        app.task(name="shop.work", aliases=[name])(work)
    assert not app.tasks
    assert not app.remotes


@pytest.mark.parametrize("option", ["aliases", "inject"])
@pytest.mark.parametrize("given", [None, 5], ids=repr)
def test_what_is_not_a_list_of_names_is_refused(option: str, given: Any) -> None:
    options: dict[str, Any] = {option: given}
    with pytest.raises(ConfigError, match=rf"task\({option}=.*\): give a list of names"):
        App("amqp://localhost:1/").task(name="shop.work", **options)


@pytest.mark.parametrize("name", [5, None, ["x"]], ids=repr)
def test_what_is_not_the_name_of_a_parameter_cannot_be_injected(name: Any) -> None:
    def work() -> None: ...

    with pytest.raises(ConfigError, match=r"has no parameter .* to inject"):
        App("amqp://localhost:1/").task(name="shop.work", inject=[name])(work)


def test_aliases_that_are_one_text_are_refused_and_not_taken_letter_by_letter() -> None:
    app = App("amqp://127.0.0.1:1/")
    with pytest.raises(ConfigError, match=r"aliases='former'\): give a list of names, such as \['former'\]"):
        app.task(name="shop.work", aliases="former")
    assert not app.tasks


def test_a_task_inside_a_class_is_called_and_sent_without_an_object() -> None:
    app = App("amqp://127.0.0.1:1/")

    class Mails:
        @staticmethod
        @app.task(name="mails.send")
        def send(user_id: int) -> int:
            return user_id

    assert Mails().send(42) == Mails.send(42) == 42
    assert Mails.send.message(42).body == b'{"user_id":42}'


@pytest.mark.parametrize("decorator", [staticmethod, classmethod])
def test_a_task_decorator_above_one_that_makes_no_function_is_refused_by_the_name_of_that_one(decorator: Any) -> None:
    app = App("amqp://127.0.0.1:1/")

    def send(user_id: int) -> None: ...

    for make in (app.task(name="mails.send"), app.remote(name="mails.send")):
        with pytest.raises(ConfigError, match=f"^Task 'mails.send' is a {decorator.__name__}"):
            make(decorator(send))
    assert not app.tasks
    assert not app.remotes


def test_what_has_no_name_cannot_be_a_task() -> None:
    app = App("amqp://127.0.0.1:1/")
    with pytest.raises(ConfigError, match=r"^A partial cannot be a task: make a task of a plain function\.$"):
        app.task(partial(len, []))


@pytest.mark.parametrize("name", ["get", "ready", "state", "successful", "wait"])
def test_what_celery_calls_a_result_names_our_methods(name: str) -> None:
    sent = Sent[None]("42", "mails.send", NO_ORIGIN)
    with pytest.raises(AttributeError, match=rf"^Sent has no '{name}': use \.result\(timeout=…\) or \.status\(\)\.$"):
        getattr(sent, name)


def test_a_message_that_was_sent_has_no_other_attributes_and_can_be_copied_and_pickled() -> None:
    sent = Sent[None]("42", "mails.send", NO_ORIGIN)
    assert not hasattr(sent, "colour")
    assert copy.deepcopy(sent) == copy.copy(sent) == pickle.loads(pickle.dumps(sent)) == sent


def test_an_app_shows_its_broker_without_the_password_and_counts_a_task_once() -> None:
    app = App("amqp://me:sesame@127.0.0.1:1/")

    @app.task(name="shop.work", aliases=["shop.former", "shop.older"])
    def work() -> None: ...

    assert repr(app) == "<App amqp://me:***@127.0.0.1:1/, 1 tasks in 1 queues>"


class Names(str, enum.Enum):  # noqa: UP042 - StrEnum shows its value, which this does not
    SPACE = "space"
    QUEUE = "emails"
    TASK = "shop.send"
    OLD = "shop.old"
    ID = "id-1"


def test_names_that_are_members_of_an_enum_are_their_values_everywhere() -> None:
    app = App("amqp://127.0.0.1:1/", namespace=Names.SPACE, default_queue=Names.QUEUE)

    @app.task(name=Names.TASK, queue=Names.QUEUE, aliases=[Names.OLD])
    def send(user_id: int) -> None: ...

    @app.remote(name="shop.remote")
    def remote(user_id: int) -> None: ...

    message = send.options(id=Names.ID, queue=Names.QUEUE, headers={Names.OLD: Names.QUEUE}).message(1)
    shown = f"{send!r} {remote.queue} {[*app.tasks]} {[*app.plan.queues]} {message} {app.queue(Names.QUEUE)}"
    assert "Names" not in shown
    assert {type(text) for text in (send.name, send.queue, message.id, message.queue, *message.headers)} == {str}
    declared = app.plan.requirements(Names.QUEUE.value, delayed=False)[0].make_topology()
    assert {queue.name for queue in declared.queues} == {"emails", "emails.dead", "space.parked"}


@pytest.mark.parametrize(
    ("url", "text"), [(5, "must be a string, got 5"), ("http://x", "begins with 'http'"), ("", "is empty")]
)
def test_a_url_that_no_broker_can_have_is_refused_where_the_app_is_made(url: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        App(url)


def test_what_is_not_a_message_is_refused_when_it_is_sent() -> None:
    app = App("amqp://localhost:1/")
    for sending in (app.send, lambda sent: list(app.send_each([sent])), lambda sent: app.send_many([sent])):
        for given in ("x", None, app):
            with pytest.raises(InvalidArguments, match=r"^Expected a Message, .*got a "):
                sending(given)  # type: ignore[arg-type, no-untyped-call]
