"""`send` and `call` without a broker: values by a task's type hints, and how they wait for whom does not answer."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, NewType

import pytest

from amqpworker import App
from amqpworker.cli.send_command import message
from amqpworker.cli.values import pairs
from tests.cli import Ended, environment, run, started

Code = NewType("Code", str)

app = App("amqp://guest:guest@127.0.0.1:1/")


@app.remote(name="shop.find", queue="shop")
def find(code: str, count: int = 1, note: str | None = None) -> None: ...


# ---- values by their hints --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hint", [str, Annotated[str, "short"], Code])
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("123", "123"),
        ("true", "true"),
        ("null", "null"),
        ("1e999", "1e999"),
        ("[1]", "[1]"),
        ('{"a": 1}', '{"a": 1}'),
        ("plain", "plain"),
        ('"123"', "123"),
        ('"a\\u00fc"', "aü"),
        ('"half', '"half'),
        ("", ""),
    ],
)
def test_where_the_task_takes_text_a_bare_value_is_text_and_quoted_json_stays_json(
    hint: Any, text: str, value: str
) -> None:
    assert pairs([f"code={text}"], "parameter", {"code": hint}) == {"code": value}


def test_null_is_nothing_where_a_parameter_may_be_nothing() -> None:
    for hint in (str | None, Code | None):
        assert pairs(["code=null"], "parameter", {"code": hint}) == {"code": None}
        assert pairs(["code=12"], "parameter", {"code": hint}) == {"code": "12"}


@pytest.mark.parametrize("hint", [None, Any, int, bool, int | str, list[str]])
def test_where_a_parameter_takes_more_than_text_a_value_is_json_where_it_can_be(hint: Any) -> None:
    assert pairs(["code=123"], "parameter", {"code": hint, "other": str}) == {"code": 123}


def test_the_values_of_a_task_that_the_app_knows_are_read_by_its_hints() -> None:
    def body(task: str, *values: str) -> Any:
        options = dict.fromkeys(("delay", "at", "expires", "id", "headers")) | {"queue": "shop"}
        return json.loads(message(app, task, list(values), None, options).body)

    assert body("shop.find", "code=123", "count=2", "note=true") == {"code": "123", "count": 2, "note": "true"}
    assert body("shop.find", 'code="007"', "note=null") == {"code": "007", "note": None}
    assert body("shop.unknown", "code=123", "note=true") == {"code": 123, "note": True}


# ---- waiting for a broker ---------------------------------------------------------------------------------------------


@contextmanager
def silent() -> Iterator[int]:
    """Listen and never send anything; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def shown(ours: int, until: str = "") -> str:
    """Return what a terminal shows, up to some words, or up to the end."""
    text = b""
    with suppress(OSError):  # how a terminal reports that it has no writer any more
        while not (until and until.encode() in text) and (chunk := os.read(ours, 65536)):
            text += chunk
    return text.decode()


@pytest.mark.parametrize("command", ["send", "call"])
def test_a_timeout_bounds_the_wait_and_nothing_is_shown_off_a_terminal(tmp_path: Path, command: str) -> None:
    began = time.monotonic()
    patient = {"AMQPWORKER_SEND_TIMEOUT": "300", "AMQPWORKER_CALL_TIMEOUT": "300"}
    ended = run(tmp_path, environment("amqp://127.0.0.1:1/", **patient), command, "t", "-q", "q", "--timeout", "1.5")
    assert "connection refused by 127.0.0.1:1" in ended.complaint()
    assert ended == Ended(2, "", ended.err)
    assert 1.5 <= time.monotonic() - began < 30


@pytest.mark.parametrize("command", ["send", "call"])
def test_a_terminal_shows_what_is_waited_for_and_ctrl_c_ends_it(tmp_path: Path, command: str) -> None:
    ours, theirs = pty.openpty()
    with silent() as port:
        env = environment(f"amqp://me:sesame@127.0.0.1:{port}/", TERM="xterm")
        with started(tmp_path, env, command, "t", "-q", "q", "--timeout", "60", stderr=theirs) as process:
            os.close(theirs)
            told = shown(ours, "…")
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.wait(15) == 130
            assert time.monotonic() - began < 30
            told += shown(ours)
    os.close(ours)
    assert told.split() == f"waiting for the broker at 127.0.0.1:{port} …".split()
