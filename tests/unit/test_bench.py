"""The benchmark where something goes wrong: a side fails and reports it, and the others are measured all the same."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.progress import Progress

from amqpworker.results import ResultRow
from amqpworker.results.store import open_store
from bench import commands, run, stopwatch, stores
from bench.arrivals import Arrivals, Tick
from bench.broker import Broker
from bench.commands import done, started
from bench.context import Bench, Slot
from bench.places import SideFailed, peak, resident, running
from bench.row import Either, Limit, Measure, Ratio, Result, Row
from bench.rows import awaited, days
from bench.rows.late_joiner import ideal
from bench.stores import Servers, check_values, opened, wait_until_stored
from bench.tally import Tally
from bench.wire import ACK, CONSUME_OK, QOS_OK, SELECT_OK, Wire, long, method, short


@contextmanager
def connected(*answers: bytes) -> Iterator[Wire]:
    """Give a raw client that is connected to a broker which sends this and closes."""
    ours, theirs = socket.socketpair()
    wire = Wire.__new__(Wire)
    wire._socket, wire._rest = ours, b""
    with ours, theirs:
        theirs.sendall(b"".join(answers))
        theirs.shutdown(socket.SHUT_WR)
        yield wire


def test_a_raw_client_that_consumes_ends_when_its_broker_goes() -> None:
    answers = [method(1, QOS_OK), method(1, CONSUME_OK, short("tag"))]
    with connected(*answers) as wire, pytest.raises(ConnectionError):
        wire.consume("queue", 1)


def test_a_raw_client_that_publishes_ends_when_its_broker_goes() -> None:
    answers = [method(1, SELECT_OK), method(1, ACK, struct.pack(">QB", 1, 0))]
    with connected(*answers) as wire, pytest.raises(ConnectionError):
        wire.publish([b"one", b"two"])


@pytest.mark.parametrize("cut", [1, 25, 49, 50, 75])
def test_each_tick_is_counted_once_where_it_arrives_in_two_reads(cut: int) -> None:
    header = short("aw-nominal") + b"S" + long(b"1970-01-01T00:00:07.500Z")
    data = b"." * 10 + header + b"." * 10 + header + b"." * 100
    arrivals = Arrivals("")
    arrivals.add(8.0, data[:cut])
    arrivals.add(9.0, data[cut:])
    arrivals.add(10.0, b"")
    assert [tick.nominal for tick in arrivals.ticks] == [7.5, 7.5]
    assert arrivals.ticks[-1] == Tick(7.5, 9.0)
    assert arrivals.first_after(8.0) == 9.0


@pytest.mark.parametrize(
    ("program", "patience", "told"),
    [
        ("import sys; sys.exit('no queue')", 60, "ended with 1:\nno queue"),
        ("import signal; signal.pause()", 0, "took longer than 0 s"),
    ],
)
def test_processes_that_fail_or_hang_are_a_failure_of_their_side(
    tmp_path: Path, program: str, patience: float, told: str
) -> None:
    command = [sys.executable, "-c", program]
    with running([command, command], {}, tmp_path / "log") as started, pytest.raises(SideFailed, match=told):
        started.wait(patience)
    assert None not in [process.returncode for process in started.processes]


def test_days_on_which_something_did_not_hold_are_counted_and_their_seeds_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = json.dumps({"hours": 48, "events": 9, "broken": [17, 23]})
    monkeypatch.setattr(days, "run", lambda *_: told)
    assert days.ours(Bench(Broker("", "")))["days broken"] == 2
    said = capsys.readouterr().err
    assert "fleet_days 1 17" in said
    assert "fleet_days 1 23" in said


@pytest.mark.parametrize(("rate", "word"), [(50.0, "met"), (40.0, "NOT MET")])
def test_a_requirement_with_alternatives_is_met_by_one_of_them_and_shows_all(rate: float, word: str) -> None:
    either = Either((Ratio("peer", "messages/s", at_least=4), Limit("messages/s", at_least=50)))
    measures = tuple(Measure(side, "", lambda _: {}) for side in ("amqpworker", "peer"))
    result = Result(Row("row", "A row", measures, (either,)))
    result.runs |= {"amqpworker": [{"messages/s": rate}], "peer": [{"messages/s": 20.0}]}
    [verdict] = result.verdicts()
    alternatives = [requirement.judge(result.runs) for requirement in either.requirements]
    assert verdict.required == ", or ".join(alternative.required for alternative in alternatives)
    assert verdict.reached == "; ".join(alternative.reached for alternative in alternatives)
    assert "peer in messages/s" in verdict.required
    assert verdict.word == word


def test_a_ratio_without_a_bound_is_shown_and_met() -> None:
    shown = Ratio("peer", "tasks/s").judge({"amqpworker": [{"tasks/s": 3.0}], "peer": [{"tasks/s": 12.0}]})
    assert (shown.required.split()[:2], shown.reached.split()[0], shown.met) == (["amqpworker:", "any"], "0.25", True)


def test_the_clock_of_stored_results_runs_until_all_are_stored(tmp_path: Path) -> None:
    tally = Tally.create(tmp_path / "tally", 2)
    tally.ended[0], tally.ended[1] = 1_000_000_000, 3_000_000_000
    assert (tally.seconds(), tally.seconds(6_000_000_000)) == (2.0, 5.0)


def test_a_result_that_is_missing_or_stored_for_another_task_is_a_failure_of_its_side() -> None:
    def put(index: int) -> None:
        reply = json.dumps({"status": "done", "value": f"{index}: text"}).encode()
        row = ResultRow(f"task-{index}", "done", "stored", reply, "", 1.0, 9e9, 1, "worker", 1.0, b"")
        assert not store.put([row])

    with opened(Servers(), stores.OURS[stores.SQLITE]) as found:
        store = open_store(found.url, "amqpworker")
        put(1)
        with pytest.raises(SideFailed, match="the worker has ended"):
            wait_until_stored(found, 2, alive=ended)
        put(2)
        assert wait_until_stored(found, 2, alive=ended) > 0
        with pytest.raises(SideFailed, match="2 results of 2 tasks are stored, of 2"):
            check_values(found, 2)
        put(0)
        check_values(found, 3)
        store.close()


def test_waits_for_results_are_reckoned_from_the_end_of_the_task_and_from_the_commit() -> None:
    committed = {"a": 10.25, "b": 11.5, "c": 12.5}
    found = awaited.figures([("a", 10.0, 10.5), ("b", 11.0, 11.75), ("c", 12.0, 13.5)], committed)
    assert (found["ms p50"], found["ms p99"], found["tasks/s"]) == (750, 1500, 1.0)
    assert (found["ms p50 after its commit"], found["ms p99 after its commit"]) == (250, 1000)


def ended() -> None:
    raise SideFailed("the worker has ended")


def test_a_row_that_takes_minutes_has_one_run_whatever_is_wanted_of_the_others() -> None:
    ran: list[str] = []

    def side(name: str) -> tuple[Measure, ...]:
        def note(_: Bench) -> dict[str, float]:
            ran.append(name)
            return {}

        return (Measure("amqpworker", "", note),)

    rows = [Row("long", "", side("long"), (), once=True), Row("short", "", side("short"), (), rounds=2)]
    with Progress(disable=True) as progress:
        for row in rows:
            run.measure(row, Bench(Broker("", "")), 3, None, progress)
    assert ran == ["long"] + ["short"] * 6


@pytest.mark.parametrize(
    ("lengths", "late", "seconds"),
    [
        ([1.0, 1.0, 1.0, 1.0], 0.0, 2.0),
        ([1.0, 1.0, 1.0], 5.0, 3.0),  # the thread that is late has nothing to do
        ([3.0, 1.0, 1.0, 4.0], 2.0, 7.0),  # the last one is the longest
    ],
)
def test_the_ideal_time_of_a_late_joiner_has_each_task_begin_in_order_when_a_thread_is_free(
    lengths: list[float], late: float, seconds: float
) -> None:
    assert ideal(lengths, 1, late) == seconds


def test_a_command_is_measured_from_its_start_to_its_end_and_a_failed_one_is_a_failure_of_its_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "OWN_PROGRAM", sys.executable)
    place = Slot("amqp://localhost", tmp_path)
    report = "import sys; print('1'); sys.stderr.write('what fell due meanwhile was late by at most 0.25 s.')"
    command = done(place, "-c", f"data = bytearray(64 << 20); {report}")
    assert (command.output.read_text(), command.longest_walk()) == ("1\n", 0.25)
    assert command.seconds > 0
    with pytest.raises(SideFailed, match="ended with 1: no queue"):
        done(place, "-c", "import sys; sys.exit('no queue')")
    with started(place, "-c", "import signal; signal.pause()") as endless:
        assert endless.is_running
    assert not endless.is_running


def test_the_most_memory_of_a_process_is_at_least_what_it_has() -> None:
    assert peak(os.getpid()) >= resident(os.getpid()) > 0
    assert peak(2**30) == 0


def test_coroutines_that_are_measured_act_on_each_number_once_and_a_hundred_at_a_time() -> None:
    acted: list[int] = []
    inside: set[int] = set()
    most = 0

    async def act(index: int) -> None:
        nonlocal most
        inside.add(index)
        most = max(most, len(inside))
        await asyncio.sleep(0)
        inside.remove(index)
        acted.append(index)

    figures = asyncio.run(stopwatch.in_flight(act, "message", 1000))
    warm_up = len(acted) - 1000
    assert sorted(acted[warm_up:]) == list(range(1000))
    assert most == stopwatch.CONCURRENCY
    assert set(figures) == {"messages/s", "µs CPU per message"}


def test_a_node_without_its_management_url_is_refused_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.options(["--url", "amqp://localhost"])
    assert "--url needs --management" in capsys.readouterr().err
