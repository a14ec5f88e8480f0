"""The parent of a pool where the machine refuses it another process, and where what it hears is no report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.worker.report import LONGEST_LINE, Answer, Heard, Report, Reporter, answer_to, answers_in, heard

NO_ROOM = """
import errno, os, subprocess
from amqpworker.errors import ConfigError
from amqpworker.supervisor import places
from amqpworker.supervisor.pools import PoolSpec
from amqpworker.supervisor.supervisor import Supervisor
from amqpworker.worker.options import WorkerOptions

places.FIRST_PAUSE = 0.1
real, refused, open_files = subprocess.Popen, [], []

def popen(*arguments, **options):
    if "amqpworker.worker.process" not in arguments[0]:
        return real(*arguments, **options)
    open_files.append(len(os.listdir("/proc/self/fd")))
    if len(refused) < 3:
        refused.append(1)
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return real(*arguments, **options)

subprocess.Popen = popen
try:
    Supervisor([PoolSpec("main", 2, WorkerOptions(app="no_such_module:app"))]).run()
except ConfigError as error:
    print(error)
assert len(open_files) == 4
assert len(set(open_files)) == 1, "nothing stays open of what was not started"
"""


def test_a_pool_that_cannot_start_a_process_tries_again_ever_more_slowly(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_ROOM], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "There is no module 'no_such_module'" in done.stdout, done.stderr
    told = [float(line.split("again_in=")[1].split()[0]) for line in done.stderr.splitlines() if "not_started" in line]
    assert told == sorted(told)
    assert len(set(told)) == 3
    assert "Resource temporarily unavailable" in done.stderr


MANY_FILES = """
import os, resource
from amqpworker.errors import ConfigError
from amqpworker.supervisor.pools import PoolSpec
from amqpworker.supervisor.supervisor import Supervisor
from amqpworker.worker.options import WorkerOptions

resource.setrlimit(resource.RLIMIT_NOFILE, (1500, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
while os.dup(0) < 1100:
    pass
try:
    Supervisor([PoolSpec("main", 1, WorkerOptions(app="no_such_module:app"))]).run()
except ConfigError as error:
    print(error)
"""


def test_a_pool_hears_its_processes_on_descriptors_of_any_number(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MANY_FILES], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert "There is no module 'no_such_module'" in done.stdout, done.stderr


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
def test_answers_are_read_in_whatever_pieces_they_come(told: list[tuple[str, bool]], data: st.DataObject) -> None:
    answers = [Answer(key, suspect) for key, suspect in told]
    stream, rest, read = b"".join(map(answer_to, answers)), b"", []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        found, rest = answers_in(rest + stream[:cut])
        read += found
        stream = stream[cut:]
    assert read == answers
    assert rest == b""


def test_a_parent_that_does_not_listen_holds_nobody_up() -> None:
    ours, theirs = os.pipe()
    reporter = Reporter(theirs)
    told = 0
    while reporter.tell(Report("asks", text="x" * 400)):
        told += 1
    assert told > 10
    os.close(ours)
    os.close(theirs)
