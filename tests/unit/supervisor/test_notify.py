"""What systemd is notified of, and what it is not."""

from __future__ import annotations

import os
import resource
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from amqpworker.ipc.recorder import Counts, Recording, Running
from amqpworker.supervisor.fleet import Fleet
from amqpworker.supervisor.notify import Announcer, Notifier, notifier_from
from amqpworker.supervisor.status import (
    History,
    Observation,
    ProcessView,
    SupervisorStatus,
    status_line,
    status_of,
)


def pool(consuming: int = 0, waiting: int = 0, alive: int = 2, stalled: int = 0, done: int = 0) -> SupervisorStatus:
    """Return the status of a pool of two, of which so many consume or wait for the broker; the others start."""
    stages = ["consuming"] * consuming + ["ready"] * waiting + ["starting"] * (alive - consuming - waiting)
    processes = tuple(
        ProcessView(
            "main",
            number,
            4711 + number,
            stage,
            1,
            0.0,
            stage == "consuming",
            "hangs" if number <= stalled else "",
            0,
            Counts(),
            (),
            0,
            0,
            0,
        )
        for number, stage in enumerate(stages, 1)
    )
    return SupervisorStatus(4711, 0.0, 2, 1, False, False, Counts(done), processes)


def but_status(lines: list[str]) -> list[str]:
    return [line for line in lines if not line.startswith("STATUS=")]


STARTING, WAITING, CONSUMING = pool(), pool(waiting=2), pool(consuming=2)


def test_ready_is_reported_once_and_only_when_every_process_consumes() -> None:
    announcer = Announcer()
    assert "READY=1" not in announcer.next(0, STARTING)
    assert "READY=1" not in announcer.next(1, pool(consuming=1))
    assert "READY=1" in announcer.next(2, CONSUMING)
    assert announcer.next(3, CONSUMING) == []
    assert announcer.next(4, pool(consuming=1)) == ["STATUS=1/2 consuming, 0 running, 0 done"]
    assert announcer.next(5, CONSUMING) == ["STATUS=2/2 consuming, 0 running, 0 done"]


def test_a_process_that_waits_for_a_broker_gets_more_time_and_one_that_hangs_while_starting_does_not() -> None:
    announcer = Announcer()
    assert but_status(announcer.next(0, STARTING)) == []
    assert announcer.next(20, STARTING) == []
    assert but_status(announcer.next(30, WAITING)) == ["EXTEND_TIMEOUT_USEC=60000000"]
    assert announcer.next(35, WAITING) == []
    assert announcer.next(40, WAITING) == ["EXTEND_TIMEOUT_USEC=60000000"]


def test_the_watchdog_is_fed_while_more_than_half_of_the_processes_are_sound() -> None:
    announcer = Announcer(watchdog=30.0)
    assert "WATCHDOG=1" in announcer.next(0, CONSUMING)
    assert announcer.next(9, CONSUMING) == []
    assert "WATCHDOG=1" in announcer.next(10, CONSUMING)
    assert "WATCHDOG=1" not in announcer.next(30, pool(consuming=2, stalled=1))
    assert "WATCHDOG=1" in announcer.next(31, WAITING), "a broker that is unreachable is not our fault"


def test_the_watchdog_is_fed_while_what_has_died_waits_for_its_next_start() -> None:
    dying = Announcer(watchdog=30.0)
    assert "WATCHDOG=1" in dying.next(0, pool(consuming=1, alive=1))
    assert "WATCHDOG=1" in dying.next(10, pool(alive=0))
    assert "WATCHDOG=1" not in dying.next(20, pool(consuming=1, alive=1, stalled=1)), "the only one that is left hangs"


def test_without_a_watchdog_none_is_fed() -> None:
    assert "WATCHDOG=1" not in Announcer().next(0, CONSUMING)


def test_a_reload_is_reported_with_its_time_and_its_end() -> None:
    announcer = Announcer()
    announcer.next(0, CONSUMING)
    reloading = replace(CONSUMING, reloading=True)
    assert but_status(announcer.next(5.5, reloading)) == ["RELOADING=1", "MONOTONIC_USEC=5500000"]
    assert announcer.next(6, reloading) == []
    assert but_status(announcer.next(7, CONSUMING)) == ["READY=1"]


def test_a_stop_is_reported_and_gets_the_time_that_it_takes() -> None:
    announcer = Announcer(watchdog=3.0)
    announcer.next(0, CONSUMING)
    stopping = replace(pool(consuming=2, stalled=2), stopping=True)
    assert but_status(announcer.next(5, stopping)) == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=60000000", "WATCHDOG=1"]
    assert announcer.next(5.5, stopping) == []


def test_the_status_is_reported_when_it_changes_at_most_once_per_second() -> None:
    announcer = Announcer()
    assert announcer.next(0, STARTING) == ["STATUS=0/2 consuming, 0 running, 0 done"]
    assert announcer.next(0.5, pool(done=1)) == []
    assert announcer.next(1.0, pool(done=1)) == ["STATUS=0/2 consuming, 0 running, 1 done"]


def test_the_status_that_comes_with_ready_is_the_one_of_that_moment() -> None:
    announcer = Announcer()
    assert announcer.next(0, STARTING) == ["STATUS=0/2 consuming, 0 running, 0 done"]
    assert announcer.next(0.5, CONSUMING) == ["READY=1", "STATUS=2/2 consuming, 0 running, 0 done"]


@pytest.mark.parametrize("abstract", [False, True])
def test_it_is_sent_to_the_address_in_the_environment_which_no_child_sees(tmp_path: Path, abstract: bool) -> None:
    name = f"@amqpworker-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + name[1:] if abstract else name)
        environment = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/"}
        notifier, announcer = notifier_from(environment)
        notifier.send(["READY=1", "STATUS=fine"])
        assert systemd.recv(100) == b"READY=1\nSTATUS=fine"
    assert announcer.watchdog == 2.0
    assert environment == {"HOME": "/"}
    notifier.send(["READY=1"])  # systemd that is gone is none of our troubles
    notifier.close()


def test_systemd_hears_of_us_also_when_no_descriptor_is_left(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        notifier = Notifier(str(tmp_path / "notify"))
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
        try:
            notifier.send(["WATCHDOG=1"])
            notifier.close()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert systemd.recv(100) == b"WATCHDOG=1"


def test_a_watchdog_that_is_meant_for_another_process_is_not_ours() -> None:
    assert notifier_from({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid() + 1)})[1].watchdog is None
    assert notifier_from({"WATCHDOG_USEC": "many"})[1].watchdog is None


def seen(consuming: bool, running: int = 0, done: int = 0, stalled: str = "") -> Observation:
    tasks = tuple(Running(n, f"m-{n}", "shop.task", 1, 1.0, 0.0) for n in range(running))
    return Observation(
        100, 1024, Recording((1.0, 1.0, 1.0, 0.0), Counts(done, 0, done // 1000), tasks, consuming), stalled
    )


def test_the_status_in_a_few_words() -> None:
    fleet = Fleet({"main": 2}, lambda: 1.0, {"main": 60.0})
    fleet.tick(0)
    fleet.on_ready(1, 30.0, 1)
    stands = status_of(fleet, {1: seen(False)}, History(), 1000.0, 1.0)
    assert status_line(stands) == "waiting for the broker, 0/2 consuming, 0 running, 0 done"
    assert len(stands.waiting) == 1
    fleet.on_consuming(1, 2)
    fleet.on_consuming(2, 2)
    both = {1: seen(True, 1, 500), 2: seen(True, 2, 7500, "its main thread has made no progress for 61 s")}
    stands = status_of(fleet, both, History(Counts(4_000)), 1000.0, 2.0)
    assert status_line(stands) == "2/2 consuming, 3 running, 12 k done, 7 dead"
    assert (stands.consuming, [bool(one.stalled) for one in stands.processes]) == (2, [False, True])
    assert stands.processes[0].started == 998.0
    left = status_of(fleet, {1: seen(True)}, History(), 1000.0, 2.0)
    assert (left.wanted, [one.stalled for one in left.processes]) == (2, [""])
    away = status_of(fleet, {1: seen(False), 2: seen(False)}, History(), 1000.0, 2.0)
    assert status_line(away) == "waiting for the broker or its queues, 0/2 consuming, 0 running, 0 done"
    waits = "the broker at mq-1:5672: Connection refused by\nmq-1:5672."
    why = {1: replace(seen(False), waits=waits), 2: seen(False)}
    assert status_line(status_of(fleet, why, History(), 1000.0, 2.0)).startswith(
        "waiting for the broker at mq-1:5672: Connection refused by mq-1:5672, 0/2 consuming"
    )
    some = {1: replace(seen(False), waits="queue 'mail': it does not exist."), 2: seen(True)}
    assert status_line(status_of(fleet, some, History(), 1000.0, 2.0)) == (
        "1/2 consuming, 0 running, 0 done, 1 waiting for queue 'mail': it does not exist"
    )
    long = {1: replace(seen(False), waits="x" * 1000), 2: seen(True)}
    assert len(status_line(status_of(fleet, long, History(), 1000.0, 2.0))) < 260
    fleet.reload(3)
    assert status_line(status_of(fleet, both, History(Counts(2_000_000)), 0.0, 0.0)).startswith(
        "reloading, 2/2 consuming"
    )
    fleet.stop("test", 4)
    assert (
        status_line(status_of(fleet, {}, History(Counts(2_000_000)), 0.0, 0.0))
        == "stopping, 0/2 consuming, 0 running, 2.0 M done"
    )
