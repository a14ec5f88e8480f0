"""A scheduler beside pools of workers: how many processes it has, when it is replaced, and what the status shows."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from amqpworker.cli.main import main
from amqpworker.cli.pool_file import pool_spec, scheduler_spec
from amqpworker.ipc.pipes import Report
from amqpworker.ipc.recorder import Counts, Gauges, Recorder, read_recording
from amqpworker.scheduler.scheduler_options import SchedulerOptions
from amqpworker.supervisor.actions import Drain, Finish, Start
from amqpworker.supervisor.fleet import Fleet
from amqpworker.supervisor.health import HealthServer, respond_to
from amqpworker.supervisor.monitor import Monitor
from amqpworker.supervisor.status import PoolView, ProcessView, SchedulerView, SupervisorStatus, status_line
from amqpworker.worker.options import WorkerOptions
from tests.unit.supervisor.fleet_scene import FleetScene
from tests.unit.supervisor.test_health import STATE

SINCE = "2026-11-30T01:02:03.456Z"
LEADS = SchedulerView("main", True, "here:4713", SINCE)
STANDBY = SchedulerView("main", False, "there:815", SINCE)
ALONE = ProcessView("scheduler", 1, 4713, "consuming", 1, 900.0, True, "", 30 << 20, Counts(), (), 0, 0, 0, "", LEADS)


def fleet_scene(**sizes: int) -> FleetScene:
    """Return a scene in which the size of the pool `scheduler` is fixed."""
    scene = FleetScene.__new__(FleetScene)
    scene.fleet = Fleet(sizes, lambda: 1.0, dict.fromkeys(sizes, 60.0), fixed={"scheduler"})
    scene.now, scene.said = 100.0, []
    scene.first = scene.on(Fleet.tick)
    return scene


def state_with(*processes: ProcessView, wanted: int) -> SupervisorStatus:
    pools = tuple(PoolView(name, 1, 1, "shop:app") for name in dict.fromkeys(one.pool for one in processes))
    return replace(STATE, processes=processes, wanted=wanted, pools=pools, errors=())


def test_there_is_one_scheduler_whatever_signals_change_the_pools() -> None:
    scene = fleet_scene(main=1, scheduler=1)
    assert scene.first == [Start(1, "main", 1), Start(2, "scheduler", 1)]
    scene.consumes(1)
    scene.consumes(2)
    assert scene.on(Fleet.grow) == [Start(3, "main", 2)]
    scene.consumes(3)
    assert scene.on(Fleet.shrink) == [Drain(3)]
    assert scene.on(Fleet.shrink) == []
    assert scene.fleet.size == 2


def test_a_new_scheduler_is_subscribed_before_the_old_one_stops() -> None:
    scene = fleet_scene(main=1, scheduler=1)
    scene.consumes(1)
    scene.consumes(2)
    assert scene.on(Fleet.reload) == [Start(3, "main", 1), Start(4, "scheduler", 1)]
    assert scene.on(Fleet.on_ready, 4, 5.0) == [], "it has loaded the new code, and is not a standby yet"
    assert scene.on(Fleet.on_consuming, 4) == [Drain(2)]


def test_a_broken_app_leaves_the_scheduler_that_runs() -> None:
    scene = fleet_scene(scheduler=1)
    scene.consumes(1)
    scene.on(Fleet.reload)
    scene.on(Fleet.on_misconfigured, 2, "schedules.toml: is not TOML.")
    assert scene.on(Fleet.on_ended, 2, 2) == []
    assert scene.field("reload_failed", "reason") == "schedules.toml: is not TOML."
    assert scene.fleet.processes[1].is_consuming


def test_a_scheduler_that_can_never_run_ends_the_service_only_while_nothing_has_consumed() -> None:
    scene = fleet_scene(main=1, scheduler=1)
    scene.on(Fleet.on_misconfigured, 2, "no such file")
    assert scene.on(Fleet.on_ended, 2, 2) == [Drain(1)]
    assert scene.on(Fleet.on_ended, 1, 0) == [Finish(2, "no such file")]

    scene = fleet_scene(main=1, scheduler=1)
    scene.consumes(1)
    scene.on(Fleet.on_misconfigured, 2, "no such file")
    assert scene.on(Fleet.on_ended, 2, 2) == []
    assert scene.on(Fleet.tick, after=scene.field("process_died", "retry_in")) == [Start(3, "scheduler", 1)]


def observed(leading: Report) -> tuple[Monitor, Fleet, Any]:
    """Return a monitor that has checked a worker and a scheduler process, which has reported this."""
    specs = {
        "main": pool_spec("main", WorkerOptions(app="shop:app", processes=1, max_tasks=1)),
        "scheduler": scheduler_spec(SchedulerOptions(app="shop:app", name="night", stall_timeout=7.0)),
    }
    fleet, monitor = Fleet({"main": 1, "scheduler": 1}, lambda: 1.0, dict.fromkeys(specs, 60.0)), Monitor(specs, 100.0)
    fleet.tick(100.0)
    workers: dict[int, Any] = {}
    for serial in (1, 2):
        fleet.on_ready(serial, 5.0, 100.0)
        fleet.on_consuming(serial, 100.0)
        recorder = Recorder(0)
        recorder.record(Counts(9), consuming=True, gauges=Gauges())
        recording = read_recording(recorder.memory)
        workers[serial] = SimpleNamespace(
            pid=4710 + serial,
            recording=lambda found=recording: found,
            resident_bytes=lambda: 0,
            record_idle_elsewhere=lambda _bits: None,
            waits="",
            paused=(),
            unknown={},
            leading=leading,
        )
    return monitor, fleet, workers


def test_what_a_scheduler_process_reports_is_in_its_status_and_not_in_that_of_a_worker() -> None:
    monitor, fleet, workers = observed(Report("leading", leads=True, leader="here:4712", since=SINCE))
    monitor.check(fleet, workers, 100.5)
    worker, scheduler = monitor.update_status(fleet, 100.5).processes
    assert worker.scheduler is None
    assert scheduler.scheduler == SchedulerView("night", True, "here:4712", SINCE)


def test_a_scheduler_that_has_reported_nothing_yet_has_a_name() -> None:
    monitor, fleet, workers = observed(Report("leading"))
    monitor.check(fleet, workers, 100.5)
    assert monitor.update_status(fleet, 100.5).processes[1].scheduler == SchedulerView("night", False, "", "")


def test_a_scheduler_is_not_replaced_for_the_tasks_of_its_neighbours() -> None:
    monitor, fleet, workers = observed(Report("leading"))
    assert monitor.check(fleet, workers, 100.5)[0] == Start(3, "main", 1)
    assert len(fleet.processes) == 3


@pytest.mark.parametrize(
    ("processes", "line"),
    [
        ((ALONE,), "1/1 consuming, scheduler main leads"),
        ((replace(ALONE, scheduler=STANDBY),), "1/1 consuming, scheduler main is a standby"),
        ((ALONE, replace(ALONE, scheduler=STANDBY)), "2/2 consuming, scheduler main leads"),
        ((replace(ALONE, stage="starting", consuming=False),), "0/1 consuming"),
        ((*STATE.processes, ALONE), "2/2 consuming, 1 running, 7 done, 2 dead, scheduler main leads"),
    ],
)
def test_the_status_line_shows_shortly_whether_the_scheduler_leads(
    processes: tuple[ProcessView, ...], line: str
) -> None:
    counts = Counts(7, 1, 2) if len(processes) > 1 and processes[0].scheduler is None else Counts()
    state = replace(state_with(*processes, wanted=len(processes)), counts=counts)
    assert status_line(state) == line
    assert respond_to("/readyz", state, 1000.0)[1] == {"status": line}


def test_the_json_of_a_status_has_who_leads_and_since_when() -> None:
    code, shown = respond_to("/status", state_with(*STATE.processes, ALONE, wanted=2), 1000.0)
    worker, scheduler = json.loads(json.dumps(shown))["processes"]
    assert (code, worker["scheduler"]) == (200, None)
    assert scheduler["scheduler"] == {"name": "main", "leads": True, "leader": "here:4713", "since": SINCE}


@pytest.mark.parametrize(
    ("process", "line"),
    [
        (ALONE, f"scheduler main: leads since {SINCE}"),
        (replace(ALONE, scheduler=STANDBY), f"scheduler main: standby, there:815 leads since {SINCE}"),
        (
            replace(ALONE, scheduler=SchedulerView("main", False, "", "")),
            "scheduler main: standby, does not know yet which one leads",
        ),
        (replace(ALONE, consuming=False), "scheduler main: waiting"),
        (replace(ALONE, consuming=False, stage="starting"), "scheduler main: starting"),
        (replace(ALONE, consuming=False, stalled="hangs"), "scheduler main: stalled"),
        (
            replace(ALONE, scheduler=SchedulerView("a\x1b[2J", True, "x", "\x1b]0;\x07")),
            "scheduler a\\x1b[2J: leads since \\x1b]0;\\x07",
        ),
        (
            replace(ALONE, scheduler=SchedulerView("main", False, "x\x1b[2J\n", "then")),
            "scheduler main: standby, x\\x1b[2J\\n leads since then",
        ),
    ],
)
def test_the_status_command_shows_who_leads_and_escapes_what_the_process_reports(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, process: ProcessView, line: str
) -> None:
    place = tmp_path / "health.sock"
    with closing(HealthServer(str(place), lambda: replace(state_with(process, wanted=1), at=time.time()))):
        assert main(["status", str(place)]) == (0 if process.consuming else 1)
    assert line in " ".join(capsys.readouterr().out.splitlines())
