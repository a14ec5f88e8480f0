"""What a process and its parent tell each other: heard whole or not at all, and garbage is told apart."""

from __future__ import annotations

import json
import os
import select
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.ipc.report import (
    EVENTS,
    LONGEST_LINE,
    MOST_UNSENT,
    Answers,
    Heard,
    Leave,
    Report,
    Reporter,
    SuspectAnswer,
    WriteStacks,
    batch_of,
    heard,
    line_of,
    verdicts_in,
)
from amqpworker.model.message import new_id

CONSUMING = b'{"event": "consuming"}\n'


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b"\xff\xfe",
        b"[]",
        b"5",
        b"{}",
        b"[" * 10_000,
        b"1" * 5000,
        b'{"event": "another"}',
        b'{"event": []}',
        b'{"event": "ready", "drain_timeout": "soon"}',
        b'{"event": "ready", "drain_timeout": Infinity}',
        b'{"event": "ready", "drain_timeout": NaN}',
        b'{"event": "ready", "drain_timeout": -1}',
        b'{"event": "ready", "drain_timeout": 1' + b"0" * 400 + b"}",
        b'{"event": "misconfigured", "text": 5}',
        b'{"event": "asks", "keys": 5}',
        b'{"event": "asks", "keys": [5]}',
        b'{"event": "asks", "keys": [["a"]]}',
        b'{"event": "ready", "more": 1}',
    ],
)
def test_a_line_that_is_no_report_is_told_apart_from_those_that_are(line: bytes) -> None:
    assert heard(line + b"\n" + CONSUMING) == Heard([Report("consuming")], b"", strange=True)


def test_a_report_that_comes_in_pieces_is_taken_when_it_is_whole() -> None:
    begun = heard(CONSUMING[:9])
    assert begun == Heard([], CONSUMING[:9], strange=False)
    assert heard(begun.rest + CONSUMING[9:]) == Heard([Report("consuming")], b"", strange=False)


def test_a_line_without_an_end_is_not_kept() -> None:
    assert heard(b"x" * (LONGEST_LINE + 1)) == Heard([], b"", strange=True)
    longest = json.dumps({"event": "misconfigured", "drain_timeout": 1e300, "text": "\N{GRINNING FACE}" * 500})
    assert heard(longest.encode()).rest == longest.encode()


@given(st.lists(st.none() | st.tuples(st.lists(st.text(max_size=80)), st.booleans())), st.data())
def test_verdicts_and_orders_are_read_in_whatever_pieces_they_come(
    sent: list[tuple[list[str], bool] | None], data: st.DataObject
) -> None:
    verdicts = [WriteStacks() if one is None else SuspectAnswer(tuple(one[0]), one[1]) for one in sent] + [Leave()]
    stream, rest, read = b"".join(map(line_of, verdicts)), b"", []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        found, rest = verdicts_in(rest + stream[:cut])
        read += found
        stream = stream[cut:]
    assert read == verdicts
    assert rest == b""


def test_a_parent_that_does_not_listen_holds_nobody_up() -> None:
    ours, theirs = os.pipe()
    reporter = Reporter(theirs)
    count = 0
    while reporter.tell(Report("asks", text="x" * 400)):
        count += 1
    assert count > 10
    os.close(ours)
    os.close(theirs)


@given(st.lists(st.text(max_size=63)))
def test_questions_about_many_messages_are_lines_that_are_written_in_one_piece(keys: list[str]) -> None:
    left, lines = list(keys), []
    while batch := batch_of(left):
        lines.append(written(Report("asks", keys=batch)))
        left = left[len(batch) :]
    assert max(map(len, lines), default=0) <= select.PIPE_BUF
    assert [key for line in lines for one in heard(line).reports for key in one.keys] == keys


def test_about_a_hundred_messages_are_asked_about_in_one_line() -> None:
    assert 80 < len(batch_of(new_id() for _ in range(1000))) < 100


def test_answers_that_find_no_room_are_written_once_there_is_some() -> None:
    reading, writing = os.pipe()
    answers = Answers(writing)
    verdicts = [SuspectAnswer(tuple(new_id() for _ in range(1000)), suspect) for suspect in (True, False, True)]
    for verdict in verdicts:
        answers.add(verdict)
    found, rest = [], b""
    with open(reading, "rb", buffering=0) as pipe:
        answers.flush()
        assert answers.waiting
        while answers.waiting or len(found) < 3:
            some, rest = verdicts_in(rest + (pipe.read(1 << 16) or b""))
            found += some
            answers.flush()
    assert found == verdicts
    os.close(writing)


def test_answers_to_a_process_that_is_gone_or_never_reads_are_not_kept() -> None:
    reading, writing = os.pipe()
    answers = Answers(writing)
    verdict = SuspectAnswer(tuple("x" * 60 for _ in range(1000)), suspect=False)
    for _ in range(1000):
        answers.add(verdict)
    answers.flush()
    os.set_blocking(reading, False)
    with open(reading, "rb", buffering=0) as pipe:
        size = 0
        while data := pipe.read(1 << 16):
            size += len(data)
            answers.flush()
    assert MOST_UNSENT <= size < MOST_UNSENT + 100_000
    answers.add(verdict)
    answers.flush()
    assert not answers.waiting
    os.close(writing)


def test_what_must_arrive_is_told_once_there_is_room_and_in_its_order() -> None:
    ours, theirs = os.pipe()
    reporter = Reporter(theirs)
    while reporter.tell(Report("asks", text="x")):
        pass
    reporter.insist(Report("ready", 5.0))
    reporter.insist(Report("consuming"))
    with open(ours, "rb", buffering=0) as pipe:
        os.set_blocking(ours, False)
        while pipe.read(1 << 16):
            pass
        reporter.again()
        reporter.again()
        assert heard(pipe.read(1 << 16) or b"").reports == [Report("ready", 5.0), Report("consuming")]
    os.close(theirs)


def written(report: Report) -> bytes:
    """Return what a process writes to tell something."""
    reading, writing = os.pipe()
    Reporter(writing).tell(report)
    os.close(writing)
    with open(reading, "rb") as pipe:
        return pipe.read()


def heard_in_pieces(data: bytes, cuts: list[int]) -> tuple[list[Report], bool]:
    """Return what is heard where data comes in pieces that end at the cuts."""
    reports: list[Report] = []
    rest, strange = b"", False
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for begin, end in pairwise(ends):
        found = heard(rest + data[begin:end])
        rest, strange = found.rest, strange or found.strange
        assert len(rest) <= LONGEST_LINE
        reports += found.reports
    return reports, strange


REPORTS = st.builds(
    Report,
    st.sampled_from(sorted(EVENTS)),
    st.floats(0, 1e9),
    st.text(max_size=600),
    st.lists(st.text(max_size=63), max_size=8).map(tuple),
)
# `hello` many times over: a line that is longer than any report.
GARBAGE = st.binary(max_size=40) | st.just(b"hello" * 4000) | st.just(b'{"event": "ready"') | st.just(b"\n\x00\n")


@given(st.lists(GARBAGE | REPORTS, max_size=8), st.lists(st.integers(0, 30_000), max_size=8))
def test_every_report_is_heard_whatever_else_is_written_and_wherever_it_is_cut(
    parts: list[bytes | Report], cuts: list[int]
) -> None:
    sent = [part for part in parts if isinstance(part, Report)]
    data = b"".join(written(part) if isinstance(part, Report) else part for part in parts)
    reports, strange = heard_in_pieces(data, cuts)
    assert [one.event for one in reports] == [one.event for one in sent]
    assert [one.text for one in reports] == [one.text[:500] for one in sent]
    assert [one.keys for one in reports] == [one.keys for one in sent]
    assert not strange or len(sent) < len(parts)


@given(st.lists(REPORTS, min_size=1, max_size=3), st.data())
def test_a_report_that_is_torn_is_not_half_heard(sent: list[Report], data: st.DataObject) -> None:
    whole = b"".join(map(written, sent))
    torn = whole[: data.draw(st.integers(0, len(whole)))]
    reports = heard(torn).reports
    assert [one.event for one in reports] == [one.event for one in sent[: len(reports)]]
