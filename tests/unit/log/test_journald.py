"""Log lines in systemd's journal: which fields they become, how these are written, and what happens without a journal."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.log.format import configure
from amqpworker.log.journald import MAX_VALUE_LENGTH, JournalHandler, encode_entry, entry_of, is_journal
from amqpworker.log.logger import get_logger, task_context
from tests.unit.log.test_logger import Running, libraries_log_as_they_did, without_other_handlers

__all__ = ["libraries_log_as_they_did"]

NAMES = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", min_size=1, max_size=64)
VALUES = st.text() | st.text("\n\x00=\r\u2028 é\ud800")


def decoded(data: bytes) -> dict[str, str]:
    """Return the fields of a datagram as the journal reads it."""
    found: dict[str, str] = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if equals:
            data = rest
        else:
            length = int.from_bytes(rest[:8], "little")
            value, data = rest[8 : 8 + length], rest[8 + length + 1 :]
            assert rest[8 + length : 8 + length + 1] == b"\n"
        found[name.decode()] = value.decode()
    return found


@given(st.dictionaries(NAMES, VALUES))
def test_what_is_written_is_read_as_the_same_fields(entry: dict[str, str]) -> None:
    told = {name: value.encode("utf-8", "backslashreplace").decode() for name, value in entry.items()}
    assert decoded(encode_entry(entry)) == told


def test_a_value_that_is_too_long_is_cut_between_two_characters() -> None:
    (shown,) = decoded(encode_entry({"A": "é" * MAX_VALUE_LENGTH})).values()
    assert shown == "é" * (MAX_VALUE_LENGTH // 2)
    (shown,) = decoded(encode_entry({"A": "x" + "é" * MAX_VALUE_LENGTH})).values()
    assert shown == "x" + "é" * (MAX_VALUE_LENGTH // 2 - 1)


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none() | st.lists(st.text())), st.booleans())
def test_any_line_becomes_an_entry_whose_names_the_journal_takes_and_whose_message_can_be_shown(
    fields: dict[str, object], as_json: bool
) -> None:
    entry = entry_of(json.dumps(fields), as_json)
    assert all(name.isascii() and name.replace("_", "A").isalnum() and len(name) <= 64 for name in entry)
    assert not any(name.startswith("_") for name in entry)
    assert all(c.isprintable() or c in "\n\t" for c in entry["MESSAGE"])
    encode_entry(entry)


@pytest.mark.parametrize(
    ("level", "priority"), [("debug", "7"), ("info", "6"), ("warning", "4"), ("error", "3"), ("critical", "2")]
)
def test_the_level_is_the_journals_priority(level: str, priority: str) -> None:
    assert entry_of(json.dumps({"level": level, "event": "e"}), False)["PRIORITY"] == priority


def test_a_line_of_a_task_has_fields_to_search_for_and_a_message_to_read() -> None:
    line = json.dumps(
        {
            "timestamp": "t",
            "level": "error",
            "event": "task_dead",
            "logger": "amqpworker.worker.settle",
            "task": "shop.mail",
            "id": "0193",
            "attempt": 2,
            "queue": "emails",
            "error-text": "a\nb",
            "exception": "Traceback …\n  ValueError: \x1b[2J",
        }
    )
    entry = entry_of(line, as_json=False)
    assert entry == {
        "MESSAGE": "task_dead task=shop.mail id=0193 attempt=2 queue=emails error-text='a\\nb'\n"
        "Traceback …\n  ValueError: \\x1b[2J",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "amqpworker",
        "AMQPWORKER_EVENT": "task_dead",
        "AMQPWORKER_LOGGER": "amqpworker.worker.settle",
        "AMQPWORKER_TASK": "shop.mail",
        "AMQPWORKER_ID": "0193",
        "AMQPWORKER_ATTEMPT": "2",
        "AMQPWORKER_QUEUE": "emails",
        "AMQPWORKER_ERROR_TEXT": "a\nb",
    }
    assert entry_of(line, as_json=True) == {**entry, "MESSAGE": line}


# ---- the socket -------------------------------------------------------------------------------------------------------


class Journal:
    """A journal and a standard error of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder / "socket")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.address)
        self.socket.setblocking(False)
        self.stream = (folder / "stderr").open("w+")

    def entries(self) -> list[dict[str, str]]:
        found = []
        while True:
            try:
                found.append(decoded(self.socket.recv(2**20)))
            except BlockingIOError:
                return found

    def plain(self) -> list[str]:
        self.stream.seek(0)
        return self.stream.read().splitlines()


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    made = Journal(tmp_path)
    found = os.fstat(made.stream.fileno())
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    monkeypatch.setattr(JournalHandler, "address", made.address)
    yield made
    configure("info")
    made.socket.close()
    made.stream.close()


@pytest.fixture
def log(journal: Journal) -> Callable[..., None]:
    configure("info", stream=journal.stream)
    return get_logger("amqpworker.test").warning


def test_only_the_stream_that_systemd_has_connected_is_the_journal(journal: Journal, tmp_path: Path) -> None:
    assert is_journal(journal.stream)
    with (tmp_path / "other").open("w") as other:
        assert not is_journal(other)
    assert not is_journal(None)
    assert not is_journal(journal.stream, {})
    assert not is_journal(journal.stream, {"JOURNAL_STREAM": "no:thing"})


def test_a_line_goes_to_the_journal_and_nowhere_else(journal: Journal, log: Callable[..., None]) -> None:
    token = task_context.set(Running())
    log("task_retried", delay=1.5)
    task_context.reset(token)
    (entry,) = journal.entries()
    assert entry["MESSAGE"] == "task_retried delay=1.5 task=shop.mail id=0193 attempt=2 queue=emails"
    assert (entry["PRIORITY"], entry["AMQPWORKER_TASK"], entry["AMQPWORKER_DELAY"]) == ("4", "shop.mail", "1.5")
    assert journal.plain() == []


def test_json_is_the_message_where_it_is_asked_for(journal: Journal) -> None:
    configure("info", json=True, stream=journal.stream)
    get_logger("x").info("one", n=1)
    (entry,) = journal.entries()
    assert json.loads(entry["MESSAGE"])["n"] == 1
    assert entry["AMQPWORKER_N"] == "1"


def test_without_the_journals_socket_a_line_is_written_with_its_level_and_later_goes_there_again(
    journal: Journal, log: Callable[..., None]
) -> None:
    log("first")
    assert len(journal.entries()) == 1
    journal.socket.close()
    log("second", note="x")
    Path(journal.address).unlink()
    try:
        raise ValueError("no")
    except ValueError as error:
        log("third", exc_info=error)
    assert journal.plain()[:3] == ["<4>second note=x", "<4>third", "<4>Traceback (most recent call last):"]
    assert all(line.startswith("<4>") for line in journal.plain())
    journal.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    journal.socket.bind(journal.address)
    journal.socket.setblocking(False)
    log("fourth")
    assert [entry["AMQPWORKER_EVENT"] for entry in journal.entries()] == ["fourth"]


def test_an_entry_that_no_datagram_takes_is_written_instead(journal: Journal, log: Callable[..., None]) -> None:
    log("large", **{f"field{number}": "x" * MAX_VALUE_LENGTH for number in range(30)})
    log("small")
    assert [entry["AMQPWORKER_EVENT"] for entry in journal.entries()] == ["small"]
    assert journal.plain()[0].startswith("<4>large field0=xxx")


def test_a_journal_that_does_not_read_blocks_no_caller_and_the_loss_is_reported(
    journal: Journal, log: Callable[..., None]
) -> None:
    for number in range(2000):
        log("line", number=number)
    first = journal.entries()
    assert 0 < len(first) < 2000
    log("after")
    notice, after = journal.entries()
    assert notice["MESSAGE"] == f"log_lines_dropped count={2000 - len(first)}"
    assert notice["PRIORITY"] == "4"
    assert after["AMQPWORKER_EVENT"] == "after"


def test_an_app_that_configures_logging_closes_no_way_to_the_journal(
    journal: Journal, log: Callable[..., None]
) -> None:
    for handler in logging.getLogger().handlers:
        if isinstance(handler, JournalHandler):
            handler.close()  # as `logging.config` does with all handlers that there are
    log("after", note="x")
    (entry,) = journal.entries()
    assert entry["AMQPWORKER_NOTE"] == "x"
    assert journal.plain() == []


@pytest.mark.usefixtures("log")
def test_a_line_that_cannot_be_shown_is_an_entry(journal: Journal) -> None:
    without_other_handlers()
    logging.getLogger("shop").warning("%d", "x")
    (entry,) = journal.entries()
    assert "a line that cannot be shown" in entry["MESSAGE"]
