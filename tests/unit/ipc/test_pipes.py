"""What a process and its supervisor send each other: it is read whole or not at all, and garbage is detected."""

from __future__ import annotations

import json
import os
import select
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.ipc.pipes import (
    EVENTS,
    MAX_LINE,
    MAX_UNSENT,
    BareCommand,
    CommandWriter,
    Event,
    ParsedReports,
    Report,
    Reporter,
    SuspectAnswer,
    encode_command,
    first_batch,
    parse_commands,
    parse_reports,
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
        b'{"event": "misconfigured", "reason": 5}',
        b'{"event": "suspect_query", "keys": 5}',
        b'{"event": "suspect_query", "keys": [5]}',
        b'{"event": "suspect_query", "keys": [["a"]]}',
        b'{"event": "ready", "more": 1}',
        b'{"event": "leading", "leads": "yes"}',
        b'{"event": "leading", "leads": 1}',
        b'{"event": "leading", "leads": []}',
        b'{"event": "leading", "leader": 5}',
        b'{"event": "leading", "since": null}',
        b'{"event": "unknown_tasks", "waiting": 5}',
        b'{"event": "unknown_tasks", "waiting": {"a": "b"}}',
        b'{"event": "unknown_tasks", "waiting": {"a": -1}}',
        b'{"event": "unknown_tasks", "waiting": {"a": true}}',
    ],
)
def test_a_line_that_is_not_a_report_is_detected_and_ignored(line: bytes) -> None:
    assert parse_reports(line + b"\n" + CONSUMING) == ParsedReports([Report("consuming")], b"", garbled=True)


def test_a_report_that_comes_in_pieces_is_taken_when_it_is_whole() -> None:
    begun = parse_reports(CONSUMING[:9])
    assert begun == ParsedReports([], CONSUMING[:9], garbled=False)
    assert parse_reports(begun.rest + CONSUMING[9:]) == ParsedReports([Report("consuming")], b"", garbled=False)


def test_a_line_without_an_end_is_not_kept() -> None:
    assert parse_reports(b"x" * (MAX_LINE + 1)) == ParsedReports([], b"", garbled=True)
    longest = json.dumps({"event": "misconfigured", "drain_timeout": 1e300, "reason": "\N{GRINNING FACE}" * 500})
    assert parse_reports(longest.encode()).rest == longest.encode()


@given(st.lists(st.none() | st.tuples(st.lists(st.text(max_size=80)), st.booleans())), st.data())
def test_commands_are_read_in_whatever_pieces_they_come(
    drawn: list[tuple[list[str], bool] | None], data: st.DataObject
) -> None:
    sent = [BareCommand.WRITE_STACKS if one is None else SuspectAnswer(tuple(one[0]), one[1]) for one in drawn] + [
        BareCommand.END_OVERDUE
    ]
    stream, rest, read = b"".join(map(encode_command, sent)), b"", []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        found, rest = parse_commands(rest + stream[:cut])
        read += found
        stream = stream[cut:]
    assert read == sent
    assert rest == b""


def test_a_supervisor_that_does_not_read_blocks_no_process() -> None:
    ours, theirs = os.pipe()
    reporter = Reporter(theirs)
    count = 0
    while reporter.send(Report("suspect_query", reason="x" * 400)):
        count += 1
    assert count > 10
    os.close(ours)
    os.close(theirs)


@pytest.mark.parametrize("text", ["x" * 600, "é" * 600, "\N{GRINNING FACE}" * 600, "\ud83d" * 600, '"\n' * 300])
@pytest.mark.parametrize("event", ["misconfigured", "exiting", "waiting"])
def test_a_report_is_never_longer_than_what_a_pipe_takes_in_one_piece(event: Event, text: str) -> None:
    line = written(Report(event, 123_456.789, text))
    (report,) = parse_reports(line).reports
    assert len(line) <= select.PIPE_BUF
    assert text[:300] <= report.reason <= text[:500]


@pytest.mark.parametrize("text", ["h" * 600, "\N{GRINNING FACE}" * 600, "\ud83d" * 600, '"\n' * 300])
def test_a_report_about_the_leader_is_never_longer_than_what_a_pipe_takes_either(text: str) -> None:
    line = written(Report("leading", 123_456.789, text, leads=True, leader=text, since=text))
    (report,) = parse_reports(line).reports
    assert len(line) <= select.PIPE_BUF
    assert (report.leads, report.leader, report.since) == (True, text[:80], text[:80])


@given(st.lists(st.text(max_size=63)))
def test_queries_about_many_messages_are_lines_that_are_written_in_one_piece(keys: list[str]) -> None:
    left, lines = list(keys), []
    while batch := first_batch(left):
        lines.append(written(Report("suspect_query", keys=batch)))
        left = left[len(batch) :]
    assert max(map(len, lines), default=0) <= select.PIPE_BUF
    assert [key for line in lines for one in parse_reports(line).reports for key in one.keys] == keys


def test_about_a_hundred_messages_are_asked_about_in_one_line() -> None:
    assert 80 < len(first_batch(new_id() for _ in range(1000))) < 100


def test_commands_that_find_no_room_are_written_once_there_is_some() -> None:
    reading, writing = os.pipe()
    commands = CommandWriter(writing)
    sent = [SuspectAnswer(tuple(new_id() for _ in range(1000)), suspect) for suspect in (True, False, True)]
    for answer in sent:
        commands.add(answer)
    found, rest = [], b""
    with open(reading, "rb", buffering=0) as pipe:
        commands.flush()
        assert commands.pending
        while commands.pending or len(found) < 3:
            some, rest = parse_commands(rest + (pipe.read(1 << 16) or b""))
            found += some
            commands.flush()
    assert found == sent
    os.close(writing)


def test_commands_to_a_process_that_is_gone_or_never_reads_are_not_kept() -> None:
    reading, writing = os.pipe()
    commands = CommandWriter(writing)
    answer = SuspectAnswer(tuple("x" * 60 for _ in range(1000)), suspect=False)
    for _ in range(1000):
        commands.add(answer)
    commands.flush()
    os.set_blocking(reading, False)
    with open(reading, "rb", buffering=0) as pipe:
        size = 0
        while data := pipe.read(1 << 16):
            size += len(data)
            commands.flush()
    assert MAX_UNSENT <= size < MAX_UNSENT + 100_000
    commands.add(answer)
    commands.flush()
    assert not commands.pending
    os.close(writing)


def test_reports_that_must_arrive_are_written_once_there_is_room_and_in_their_order() -> None:
    ours, theirs = os.pipe()
    reporter = Reporter(theirs)
    while reporter.send(Report("suspect_query", reason="x")):
        pass
    reporter.send_reliably(Report("ready", 5.0))
    reporter.send_reliably(Report("consuming"))
    with open(ours, "rb", buffering=0) as pipe:
        os.set_blocking(ours, False)
        while pipe.read(1 << 16):
            pass
        reporter.flush_pending()
        reporter.flush_pending()
        assert parse_reports(pipe.read(1 << 16) or b"").reports == [Report("ready", 5.0), Report("consuming")]
    os.close(theirs)


def written(report: Report) -> bytes:
    """Return what a process writes for a report."""
    reading, writing = os.pipe()
    Reporter(writing).send(report)
    os.close(writing)
    with open(reading, "rb") as pipe:
        return pipe.read()


def parsed_in_pieces(data: bytes, cuts: list[int]) -> tuple[list[Report], bool]:
    """Return what is parsed if data arrives in pieces that end at the cuts."""
    reports: list[Report] = []
    rest, garbled = b"", False
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for begin, end in pairwise(ends):
        found = parse_reports(rest + data[begin:end])
        rest, garbled = found.rest, garbled or found.garbled
        assert len(rest) <= MAX_LINE
        reports += found.reports
    return reports, garbled


REPORTS = st.builds(
    Report,
    st.sampled_from(sorted(EVENTS)),
    st.floats(0, 1e9),
    st.text(max_size=600),
    st.lists(st.text(max_size=63), max_size=8).map(tuple),
    st.booleans(),
    st.text(max_size=100),
    st.text(max_size=100),
)
# `hello` many times over: a line that is longer than any report.
GARBAGE = st.binary(max_size=40) | st.just(b"hello" * 4000) | st.just(b'{"event": "ready"') | st.just(b"\n\x00\n")


@given(st.lists(GARBAGE | REPORTS, max_size=8), st.lists(st.integers(0, 30_000), max_size=8))
def test_every_report_is_parsed_whatever_else_is_written_and_wherever_it_is_cut(
    parts: list[bytes | Report], cuts: list[int]
) -> None:
    sent = [part for part in parts if isinstance(part, Report)]
    data = b"".join(written(part) if isinstance(part, Report) else part for part in parts)
    reports, garbled = parsed_in_pieces(data, cuts)
    assert [one.event for one in reports] == [one.event for one in sent]
    assert all(one.reason[:500].startswith(report.reason) for one, report in zip(sent, reports, strict=True))
    assert all(
        report.reason == one.reason[:300] for one, report in zip(sent, reports, strict=True) if len(one.reason) <= 300
    )
    assert [one.keys for one in reports] == [one.keys for one in sent]
    assert [(one.leads, one.leader, one.since) for one in reports] == [
        (one.leads, one.leader[:80], one.since[:80]) for one in sent
    ]
    assert not garbled or len(sent) < len(parts)


@given(st.lists(REPORTS, min_size=1, max_size=3), st.data())
def test_a_report_that_is_torn_is_not_half_parsed(sent: list[Report], data: st.DataObject) -> None:
    whole = b"".join(map(written, sent))
    torn = whole[: data.draw(st.integers(0, len(whole)))]
    reports = parse_reports(torn).reports
    assert [one.event for one in reports] == [one.event for one in sent[: len(reports)]]
