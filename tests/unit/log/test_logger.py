"""Log lines: their form, what they contain of the task, and what they never contain."""

from __future__ import annotations

import contextvars
import fcntl
import io
import json
import logging
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog

from amqpworker.errors import ConfigError
from amqpworker.log.format import LIBRARY_LEVELS, configure
from amqpworker.log.logger import get_logger, task_context
from amqpworker.log.writer import LineHandler


@dataclass
class Running:
    task: str = "shop.mail"
    id: str = "0193"
    attempt: int = 2
    queue: str = "emails"


@pytest.fixture(autouse=True)
def libraries_log_as_they_did() -> Iterator[None]:
    """Undo what `configure` does beside the root logger, which every test gets back."""
    levels = {name: logging.getLogger(name).level for name in LIBRARY_LEVELS}
    yield
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    structlog.reset_defaults()


@pytest.fixture
def lines() -> Callable[[], list[dict[str, Any]]]:
    """Log JSON lines into memory, and return what reads them."""
    stream = io.StringIO()
    configure("debug", json=True, stream=stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def text() -> io.StringIO:
    stream = io.StringIO()
    configure("debug", json=False, stream=stream)
    return stream


def without_other_handlers() -> None:
    """Take away pytest's handlers, which raise for a line that cannot be shown."""
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if isinstance(handler, LineHandler)]


# -- form


def test_a_json_line_has_time_level_event_logger_and_the_fields(lines: Callable[[], list[dict[str, Any]]]) -> None:
    get_logger("amqpworker.test").info("connected", host="h", port=5672)
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {"level": "info", "event": "connected", "logger": "amqpworker.test", "host": "h", "port": 5672}


def test_a_text_line_has_keys_and_values(text: io.StringIO) -> None:
    get_logger("amqpworker.test").warning("connected", host="h", note="two words")
    (line,) = text.getvalue().splitlines()
    assert "warning" in line
    assert "connected" in line
    assert "[amqpworker.test] host=h note='two words'" in line
    assert "\x1b" not in line


def test_what_is_not_a_terminal_gets_json_by_default() -> None:
    stream = io.StringIO()
    configure(stream=stream)
    get_logger("x").info("one")
    assert json.loads(stream.getvalue())["event"] == "one"


@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_a_terminal_gets_text_in_colours_unless_it_wants_none(
    monkeypatch: pytest.MonkeyPatch, no_color: str, colored: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    controller, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stream:
        configure(stream=stream)
        get_logger("x").info("hello", n=1)
        shown = os.read(controller, 4096).decode()
    os.close(controller)
    assert "hello" in shown
    assert ("\x1b[" in shown) is colored


@pytest.mark.parametrize("json_lines", [True, False])
def test_values_of_strangers_cannot_feign_lines_or_move_the_cursor(json_lines: bool) -> None:
    stream = io.StringIO()
    configure("info", json=json_lines, stream=stream)
    get_logger("x").info("type\nfake line", value="\x1b[2J\r\nfake line", deep=["\x1b\n"])
    assert len(stream.getvalue().splitlines()) == 1
    assert "\x1b" not in stream.getvalue()


def test_a_field_cannot_hide_what_the_line_is(lines: Callable[[], list[dict[str, Any]]]) -> None:
    get_logger("x").info("one", level="none", logger="nobody", timestamp="never", message=1, name=2, args=3)
    (line,) = lines()
    assert (line["level"], line["logger"], line["level_"], line["name"]) == ("info", "x", "none", 2)


def test_the_level_holds_for_loggers_made_before_and_follows_a_change(text: io.StringIO) -> None:
    log = get_logger("x")
    configure("warning", json=False, stream=text)
    log.info("unseen")
    log.debug("unseen")
    log.warning("seen")
    configure("debug", json=False, stream=text)
    log.debug("seen too")
    assert [word for word in ("unseen", "seen too") if word in text.getvalue()] == ["seen too"]
    assert len(text.getvalue().splitlines()) == 2


def test_configuring_twice_writes_each_line_once(text: io.StringIO) -> None:
    configure("info", json=False, stream=text)
    get_logger("x").info("one")
    assert text.getvalue().count("one") == 1


def test_an_unknown_level_is_reported_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"Unknown log level 'loud': choose one of debug, info, warning"):
        configure("loud")
    configure("INFO", stream=io.StringIO())


def test_a_line_knows_the_place_that_wrote_it(caplog: pytest.LogCaptureFixture) -> None:
    get_logger("x").error("lost", why="reset")
    (record,) = caplog.records
    assert (record.filename, record.funcName) == (Path(__file__).name, "test_a_line_knows_the_place_that_wrote_it")


# -- other loggers


def test_the_standard_librarys_loggers_come_along(lines: Callable[[], list[dict[str, Any]]]) -> None:
    logging.getLogger("shop").warning("%s of %s", 1, 2)
    (line,) = lines()
    assert (line["level"], line["event"], line["logger"]) == ("warning", "1 of 2", "shop")


def test_a_tasks_own_structlog_loggers_come_along(lines: Callable[[], list[dict[str, Any]]]) -> None:
    structlog.get_logger("shop").info("sent %s", "it", n=1)
    (line,) = lines()
    assert (line["event"], line["logger"], line["n"]) == ("sent it", "shop", 1)


def test_structlog_that_was_set_up_otherwise_is_left_alone() -> None:
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    configure(stream=io.StringIO())
    assert len(structlog.get_config()["processors"]) == 1


def test_pika_does_not_log_a_lost_connection_a_second_time(lines: Callable[[], list[dict[str, Any]]]) -> None:
    for name in ("adapters.utils.io_services_utils", "adapters.base_connection", "connection", "channel"):
        logging.getLogger(f"pika.{name}").error("lost")
    for name in ("pika", "pika.callback", "aio_pika", "aiormq"):
        logging.getLogger(name).debug("each frame")
        logging.getLogger(name).info("connecting")
    logging.getLogger("pika.callback").error("a callback of ours failed")
    assert [line["event"] for line in lines()] == ["a callback of ours failed"]


def test_in_a_process_that_did_not_configure_its_own_handlers_show_our_lines(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        get_logger("amqpworker.test").info("connected", url="amqp://u:pw@h", note="two words")
        get_logger("amqpworker.test").debug("unseen")
    (record,) = caplog.records
    assert record.name == "amqpworker.test"
    assert record.getMessage() == "connected url=amqp://u:***@h note='two words'"
    assert not structlog.is_configured()


def test_an_exception_reaches_handlers_of_others(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("no")
    except ValueError as error:
        get_logger("x").error("failed", exc_info=error)
    assert caplog.records[0].exc_info is not None
    assert "ValueError: no" in caplog.text


# -- tasks


def test_each_line_of_a_task_names_it(lines: Callable[[], list[dict[str, Any]]]) -> None:
    def run() -> None:
        task_context.set(Running())
        get_logger("amqpworker.test").info("one")
        logging.getLogger("shop").info("two")
        structlog.get_logger("shop").info("three")

    contextvars.copy_context().run(run)
    get_logger("amqpworker.test").info("outside")
    *inside, outside = lines()
    fields = {"task": "shop.mail", "id": "0193", "attempt": 2, "queue": "emails"}
    assert [{name: line[name] for name in fields} for line in inside] == [fields] * 3
    assert not fields.keys() & outside.keys()


def test_a_field_of_the_line_itself_comes_before_that_of_the_task(lines: Callable[[], list[dict[str, Any]]]) -> None:
    token = task_context.set(Running())
    get_logger("x").info("one", queue="other")
    task_context.reset(token)
    assert lines()[0]["queue"] == "other"


def test_a_field_without_information_is_left_out(text: io.StringIO) -> None:
    configure("info", json=True, stream=text)
    get_logger("x").info("one", reason=None, count=0)
    (line,) = [json.loads(one) for one in text.getvalue().splitlines()]
    assert "reason" not in line
    assert line["count"] == 0


def test_nothing_is_asked_for_a_line_that_is_not_written(text: io.StringIO) -> None:
    class Asked:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    configure("warning", json=False, stream=text)
    token = task_context.set(Asked())
    get_logger("x").info("unseen")
    logging.getLogger("shop").info("unseen")
    structlog.get_logger("shop").info("unseen")
    with pytest.raises(AssertionError):
        get_logger("x").warning("seen")
    task_context.reset(token)
    assert text.getvalue() == ""


# -- secrets


@pytest.mark.parametrize("json_lines", [True, False])
def test_no_password_of_a_url_is_logged(json_lines: bool) -> None:
    stream = io.StringIO()
    configure("info", json=json_lines, stream=stream)
    url = "amqp://user:secret@host/"
    log = get_logger("x")
    log.info(url, value=url, deep={"a": [{url: (url,)}]}, raw=url.encode(), error=ValueError(url))
    logging.getLogger("shop").info("foreign %s", url)
    structlog.get_logger("shop").info(url, value=url)
    try:
        try:
            raise KeyError(url)
        except KeyError as error:
            raise ValueError(f"no {url}") from error
    except ValueError as error:
        log.error("failed", exc_info=error)
        logging.getLogger("shop").exception("failed")
        structlog.get_logger("shop").exception("failed", value=url, stack_info=True)
    of_structlog = {"msg": {"event": url, url: url}, "_logger": None, "_name": ""}  # its `wrap_for_formatter`
    for record in (of_structlog, {"msg": "here", "stack_info": f"Stack of {url}"}):
        logging.getLogger("shop").handle(logging.makeLogRecord({"levelno": 20, "levelname": "INFO", **record}))
    token = task_context.set(Running(id=url))
    logging.getLogger("shop").info("in a task")
    structlog.get_logger("shop").info("in a task")
    log.info("in a task")
    task_context.reset(token)
    without_other_handlers()
    logging.getLogger("shop").info("%d", url)
    assert "secret" not in stream.getvalue()
    assert stream.getvalue().count("user:***@host") >= 22


def test_no_password_of_a_url_is_logged_as_the_name_of_a_logger(lines: Callable[[], list[dict[str, Any]]]) -> None:
    logging.getLogger("shop of amqp://user:secret@host/").info("opened")
    structlog.get_logger("shop of amqp://user:secret@host/").info("opened")
    assert [line["logger"] for line in lines()] == ["shop of amqp://user:***@host/"] * 2


def test_no_password_of_a_url_reaches_other_handlers_in_our_lines_or_those_of_structlog(
    lines: Callable[[], list[dict[str, Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    url = "amqp://user:secret@host/"
    with caplog.at_level("INFO"):
        get_logger("x").info(url, value=url, deep={"a": [{url: (url,)}]})
        structlog.get_logger("shop").info(url, value=[url])
    assert len(caplog.records) == len(lines()) == 2
    assert "secret" not in caplog.text
    assert caplog.text.count("user:***@host") == 6


def test_a_traceback_is_text_in_one_field(lines: Callable[[], list[dict[str, Any]]]) -> None:
    try:
        raise ValueError("no")
    except ValueError as error:
        get_logger("x").error("failed", exc_info=error)
        logging.getLogger("shop").exception("failed")
    for line in lines():
        assert line["exception"].startswith("Traceback")
        assert line["exception"].endswith("ValueError: no")
        assert "exc_info" not in line


def test_a_filter_of_the_service_that_fails_costs_the_line_and_not_the_thread(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(_record: logging.LogRecord) -> bool:
        raise LookupError("no request")

    logging.getLogger("x").addFilter(fail)
    try:
        get_logger("x").error("lost")
    finally:
        logging.getLogger("x").removeFilter(fail)
    assert "LookupError: no request" in capsys.readouterr().err


# -- sinks


def test_a_line_that_cannot_be_shown_is_one_line_and_no_error(text: io.StringIO) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

        __repr__ = __str__

    without_other_handlers()
    logging.getLogger("shop").info("%d", "x")
    logging.getLogger("shop").info(Broken())
    get_logger("x").info("one", value=Broken())
    assert len(text.getvalue().splitlines()) == 3


def test_what_the_stream_cannot_encode_is_escaped() -> None:
    raw = io.BytesIO()
    configure("info", json=False, stream=io.TextIOWrapper(raw, "ascii"))
    get_logger("x").info("für \ud800")
    assert b"f\\xfcr \\ud800" in raw.getvalue()


def test_a_closed_stream_takes_no_lines_and_raises_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    configure("info", stream=stream)
    stream.close()
    get_logger("x").info("one")
    logging.getLogger("shop").info("one")
    assert capsys.readouterr() == ("", ""), "neither logging complains of it, nor does the line go elsewhere"


def test_a_pipe_that_is_not_read_blocks_no_caller_and_dropped_lines_are_reported() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        configure("info", json=True, stream=stream)
        log = get_logger("x")
        for number in range(300):
            log.info("line", number=number, fill="x" * 1000)
        collected: list[bytes] = []
        reading = threading.Thread(target=lambda: collected.extend(iter(lambda: os.read(reader, 65536), b"")))
        reading.start()
        while not b"".join(collected).endswith(b'"after"}\n'):
            log.info("last", note="after")
    reading.join()
    os.close(reader)
    told = b"".join(collected).decode()
    assert '"event": "log_lines_dropped"' in told
    assert '"number": 0' in told
    assert '"number": 299' not in told


def test_no_line_goes_before_the_notice_of_those_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that makes room between the look for the notice and that for the line."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream, os.fdopen(reader, "rb", buffering=0) as read:
        configure("info", json=True, stream=stream)
        (sink,) = [one for one in logging.getLogger().handlers if isinstance(one, LineHandler)]
        room = iter([False, False, True, True, True, True])
        monkeypatch.setattr(sink, "_is_writable", lambda _wait: next(room))
        log = get_logger("x")
        for event in ("dropped", "too early", "first"):
            log.info(event)
        notice, line, *_ = map(json.loads, (read.read(65536) or b"").decode().splitlines())
    assert (notice["event"], notice["count"]) == ("log_lines_dropped", 2)
    assert line["event"] == "first"


def test_a_line_that_was_torn_does_not_spoil_the_next() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 16384)
    with os.fdopen(writer, "w") as stream, os.fdopen(reader, "rb", buffering=0) as read:
        configure("info", json=True, stream=stream)
        log = get_logger("x")
        log.info("long", fill="x" * 20000)
        log.info("dropped")
        assert len(read.read(65536) or b"") == 16384
        log.info("first")
        log.info("second")
        rest = (read.read(65536) or b"").decode()
    nothing, notice, first, second = rest.splitlines()
    assert nothing == ""
    assert (json.loads(notice)["count"], json.loads(notice)["level"]) == (2, "warning")
    assert [json.loads(line)["event"] for line in (notice, first, second)] == ["log_lines_dropped", "first", "second"]


PROGRAM = """
import sys
from amqpworker.log.format import configure
from amqpworker.log.logger import get_logger
configure("info")
for number in range(2000):
    get_logger("x").info("line", number=number)
sys.exit(7)
"""


@pytest.mark.parametrize("sink", ["2>/dev/full", "2>&-", "2>&1 >/dev/null | head -1"])
def test_a_full_closed_or_broken_sink_ends_no_program_and_changes_no_exit_code(sink: str) -> None:
    shell = f'"{sys.executable}" -c "$PROGRAM" {sink}; echo "${{PIPESTATUS[0]}}"'
    done = subprocess.run(
        ["bash", "-c", shell], env={**os.environ, "PROGRAM": PROGRAM}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "7"
    assert done.stderr == ""
