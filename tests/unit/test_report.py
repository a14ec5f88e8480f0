"""What a process and its parent tell each other: heard whole or not at all, and garbage is told apart."""

from __future__ import annotations

import json
import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.worker.report import EVENTS, LONGEST_LINE, Heard, Report, Reporter, Verdict, heard, line_of, verdicts_in

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


@given(st.lists(st.tuples(st.text(max_size=80), st.booleans())), st.data())
def test_verdicts_are_read_in_whatever_pieces_they_come(sent: list[tuple[str, bool]], data: st.DataObject) -> None:
    verdicts = [Verdict(key, suspect) for key, suspect in sent]
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


REPORTS = st.builds(Report, st.sampled_from(sorted(EVENTS)), st.floats(0, 1e9), st.text(max_size=600))
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
    assert not strange or len(sent) < len(parts)


@given(st.lists(REPORTS, min_size=1, max_size=3), st.data())
def test_a_report_that_is_torn_is_not_half_heard(sent: list[Report], data: st.DataObject) -> None:
    whole = b"".join(map(written, sent))
    torn = whole[: data.draw(st.integers(0, len(whole)))]
    reports = heard(torn).reports
    assert [one.event for one in reports] == [one.event for one in sent[: len(reports)]]
