"""How a program of ours reports why it ends: on a terminal, in systemd's journal, and among JSON lines."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from amqpworker.cli.main import main
from amqpworker.log.terminal import print_error

LONG = "There is no queue 'emails.dead', though there is a queue 'emails': has it been declared by amqpworker? " * 2


def test_a_long_line_is_wrapped_between_words_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with open(terminal, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        print_error(LONG)
        stream.flush()
        lines = os.read(reading, 4096).decode().splitlines()
    os.close(reading)
    assert len(lines) > 2
    assert all(len(line) <= 80 for line in lines)
    assert " ".join(" ".join(lines).split()) == f"amqpworker: {LONG.strip()}"


def test_elsewhere_it_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(LONG)
    assert capsys.readouterr().err == f"amqpworker: {LONG.strip()}\n"


@pytest.mark.parametrize(("text", "priority"), [("There is no module 'shop'.", 3), ("Warning: it is slow.", 4)])
def test_in_the_journal_a_complaint_has_a_priority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, priority: int
) -> None:
    path = tmp_path / "stderr"
    with path.open("w") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        monkeypatch.setattr(sys, "stderr", stream)
        print_error(text)
    assert path.read_text() == f"<{priority}>amqpworker: {text}\n"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--log-json",), "Missing argument 'MODULE:APP'"),
        (("shop:app", "--log-json", "--log-level", "loud"), "--log-level: must be 'debug'"),
        (("shop:app", "--log-json", "--thread", "4"), "No such option: --thread"),
    ],
)
def test_a_worker_that_logs_json_reports_in_json_why_it_cannot_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, options: tuple[str, ...], told: str
) -> None:
    monkeypatch.delenv("AMQPWORKER_APP", raising=False)
    done = subprocess.run(
        [sys.executable, "-m", "amqpworker", "worker", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    line = json.loads(done.stderr)
    assert (line["level"], line["event"]) == ("critical", "start_failed")
    assert line["reason"].startswith(told)


def test_a_person_gets_text(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AMQPWORKER_APP", raising=False)
    assert main(["worker", "--log-json", "--no-log-json"]) == 2
    assert capsys.readouterr().err.startswith("amqpworker: Missing argument")


def test_output_to_a_full_disk_ends_with_one_line_and_no_traceback() -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "amqpworker", "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.stderr == "amqpworker: The output cannot be written: no space left on device.\n"
    assert ended.returncode == 2
