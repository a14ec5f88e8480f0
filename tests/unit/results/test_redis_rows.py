"""How a row is kept in Redis: a value that other languages can read, and keys that never coincide."""

from __future__ import annotations

import json

import pytest

from amqpworker.errors import ResultStoreError
from amqpworker.results.redis_rows import LONGEST_LIFETIME, Keys, lifetime, packed, row_of, value_of
from amqpworker.results.row import ResultRow

ROW = ResultRow(
    "a",
    "done",
    "shop.task",
    b'{"status":"done"}',
    "2026-11-23T10:00:00.000Z",
    1.25,
    2.5,
    3,
    "host",
    1.125,
    b'{"done":1}',
)


def test_a_value_is_a_line_to_compare_a_line_of_json_and_the_reply() -> None:
    line, rest, reply = value_of(ROW).split(b"\n", 2)
    assert line == b"1 2 2026-11-23T10:00:00.000Z"
    assert json.loads(rest) == {
        "state": "done",
        "task": "shop.task",
        "stored_at": 1.25,
        "expires_at": 2.5,
        "attempt": 3,
        "worker": "host",
        "started_at": 1.125,
        "progress": '{"done":1}',
    }
    assert reply == ROW.reply


@pytest.mark.parametrize(
    "row",
    [
        ROW,
        ResultRow("", "", "", b"", "", 0.0, 0.0),
        ROW._replace(task="x\0y\nz", reply=b"\n\n\0\xff", progress=b"\xff\n", worker="ü\n"),
        ROW._replace(first_sent="with spaces ü", expires_at=float("inf")),
    ],
)
def test_a_row_is_read_as_it_was_kept(row: ResultRow) -> None:
    assert row_of(row.id, value_of(row)) == row


def test_what_a_later_version_adds_is_ignored() -> None:
    value = value_of(ROW).replace(b'{"state"', b'{"colour":"red","state"')
    assert row_of("a", value) == ROW


@pytest.mark.parametrize(
    "value", [b"", b"1", b"2 2 \n{}\n", b"1 2 \n{}\n", b"1 2 \n[]\n", b"1 2 \n{", b"\xff", b"11 2 \n"]
)
def test_a_value_that_is_not_ours_is_refused(value: bytes) -> None:
    with pytest.raises(ResultStoreError, match="another program, or by a later version"):
        row_of("a", value)


def test_ids_and_namespaces_that_differ_have_keys_that_differ() -> None:
    names = ["a", "A", "a:b", "a:result:b", "result", "", "{a}", "\ud800", "\udcff", "x\0y", "%"]
    keys = {Keys(namespace).of(task_id) for namespace in names if namespace.isascii() for task_id in names}
    assert len(keys) == len([name for name in names if name.isascii()]) * len(names)
    assert Keys("shop").of("4f") == b"amqpworker:shop:result:4f"
    assert b"{" not in Keys("{a}").of("b"), "all rows of a namespace would be in one slot of a cluster"


@pytest.mark.parametrize(
    ("expires_at", "expected"),
    [
        (100.0, 0),
        (99.0, 0),
        (100.0005, 0),
        (100.25, 250),
        (1e300, LONGEST_LIFETIME),
        (float("inf"), LONGEST_LIFETIME),
        (float("nan"), 0),
    ],
)
def test_a_row_is_kept_for_whole_milliseconds(expires_at: float, expected: int) -> None:
    assert lifetime(expires_at, 100.0) == expected


def test_a_command_is_packed_as_redis_reads_it() -> None:
    assert packed(b"SET", b"k\0", b"") == b"*3\r\n$3\r\nSET\r\n$2\r\nk\0\r\n$0\r\n\r\n"
