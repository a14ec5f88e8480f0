"""A scheduler under a supervisor: started, replaced, and ended, while its ticks are sent."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from amqpworker.cli.status_command import get_status
from amqpworker.errors import NotConnected
from tests.cli import environment, run
from tests.pools import Pool, alive, pool
from tests.support import Broker, wait_until

OFTEN = """
from amqpworker import current

@app.schedule("often", every=1)
@app.task(name="shop.tick", queue="work", retry=None)
def tick() -> None:
    note(f"tick {current().nominal:%s}")

@app.task(name="shop.mark", queue="work", retry=None)
def mark(what: str) -> None:
    note(what)
"""
FILE = """
[[schedules]]
name = "{name}"
task = "shop.mark"
arguments = {{ what = "{name}" }}
every = 1
"""
HEALTH = ("--health", "./health")
TIMEOUT = 30.0
MISTAKE = "\ndef this is not Python\n"


def views_of(scheduling: Pool) -> list[dict[str, Any]]:
    """Return the processes in the status of a supervisor, none as long as it does not answer."""
    with suppress(NotConnected):
        views: list[dict[str, Any]] = get_status(str(scheduling.folder / "health"))["processes"]
        return views
    return []


def leading(scheduling: Pool, other_than: int = 0) -> int:
    """Wait until a scheduler process of this supervisor leads; return its process id."""

    def found() -> int | None:
        views = [view for view in views_of(scheduling) if view["pid"] != other_than]
        return next((view["pid"] for view in views if view["scheduler"] and view["scheduler"]["leads"]), None)

    pid = wait_until(found, TIMEOUT, "a process that leads")
    assert pid is not None
    return pid


def known_leader(scheduling: Pool) -> str:
    """Return which scheduler leads, as the process of this supervisor knows; "" as long as it does not."""
    return next((str(view["scheduler"]["leader"]) for view in views_of(scheduling)), "")


def ticks(scheduling: Pool) -> list[int]:
    """Return the times, in seconds, for which a tick of `often` has run."""
    return sorted({int(line.removeprefix("tick ")) for line in scheduling.ledger() if line.startswith("tick")})


def more_ticks(scheduling: Pool) -> None:
    """Wait until another tick has run, and none was missed so far."""
    before = len(ticks(scheduling))
    wait_until(
        lambda: len(found := ticks(scheduling)) > before and found == [*range(found[0], found[-1] + 1)],
        TIMEOUT,
        "another tick, and each before it",
    )


def test_a_scheduler_beside_a_pool_sends_ticks_and_is_shown_as_the_leader(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", *HEALTH, "--scheduler", "--scheduler-name", "night", more=OFTEN) as both:
        both.wait_for("process_started", 2)
        pid = leading(both)
        more_ticks(both)
        shown = run(tmp_path, environment(), "status", str(both.process.pid))
        assert "scheduler (shop:app): 1/1 consuming\nscheduler night: leads since 20" in shown.out
        assert "2/2 consuming" in shown.out
        assert "scheduler night leads" in " ".join(shown.out.split())
        listed = run(tmp_path, environment(), "workers").out
        assert "scheduler (shop:app)" in listed
        for number, grown in ((signal.SIGTTIN, "pool_grown"), (signal.SIGTTOU, "pool_shrunk")):
            both.signal(number)
            assert [line["pool"] for line in both.wait_for(grown)] == ["main"]
        assert leading(both) == pid
        both.signal(signal.SIGTERM)
        assert both.end() == 0
        assert not alive(pid)


def test_hup_replaces_a_scheduler_that_stops_once_the_new_one_is_a_standby(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", *HEALTH, "--scheduler", more=OFTEN) as both:
        old = leading(both)
        more_ticks(both)
        both.signal(signal.SIGHUP)
        new = leading(both, other_than=old)
        both.wait_for("scheduler_stopped")
        lines = [json.loads(line) for line in both.log.splitlines() if line.startswith("{")]
        started = next(
            at for at, line in enumerate(lines) if (line["event"], line.get("pid")) == ("process_started", new)
        )
        stopped = next(at for at, line in enumerate(lines) if line["event"] == "scheduler_stopped")
        assert started < stopped, "it had subscribed before the old one was stopped"
        more_ticks(both)
        assert both.events("process_killed") == []
        both.signal(signal.SIGTERM)
        assert both.end() == 0


def test_a_scheduler_that_is_killed_is_replaced_and_leads_again(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", *HEALTH, "--scheduler", more=OFTEN) as both:
        killed = leading(both)
        os.kill(killed, signal.SIGKILL)
        (died,) = both.wait_for("process_died")
        assert (died["pid"], died["pool"]) == (killed, "scheduler")
        leading(both, other_than=killed)
        more_ticks(both)
        both.signal(signal.SIGTERM)
        assert both.end() == 0


def test_hup_with_code_that_cannot_start_keeps_the_scheduler(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, "-p", "1", *HEALTH, "--scheduler", more=OFTEN) as both:
        pid = leading(both)
        shop = tmp_path / "shop.py"
        shop.write_text(shop.read_text() + MISTAKE)
        both.signal(signal.SIGHUP)
        assert {line["pool"] for line in both.wait_for("reload_failed", 2)} == {"main", "scheduler"}
        more_ticks(both)
        assert leading(both) == pid
        both.signal(signal.SIGTERM)
        assert both.end() == 0


def test_hup_reads_the_file_of_schedules_again_and_no_tick_is_missed(tmp_path: Path, vhost: Broker) -> None:
    more = tmp_path / "more.toml"
    more.write_text(FILE.format(name="one"))
    options = ("-p", "1", *HEALTH, "--scheduler", "--scheduler-file", "more.toml")
    elsewhere = '\nimport os\nos.chdir("/")\n'  # as an app may do
    with pool(tmp_path, vhost.url, *options, more=OFTEN + elsewhere) as both:
        old = leading(both)
        wait_until(lambda: "one" in both.ledger(), TIMEOUT)
        more.write_text(FILE.format(name="two"))
        both.signal(signal.SIGHUP)
        new = leading(both, other_than=old)
        wait_until(lambda: "two" in both.ledger(), TIMEOUT)
        more_ticks(both)
        more.write_text("[[schedules]]")
        both.signal(signal.SIGHUP)
        (failed,) = both.wait_for("reload_failed")
        assert (failed["pool"], "more.toml: " in failed["reason"]) == ("scheduler", True), failed
        more_ticks(both)
        assert leading(both) == new
        both.signal(signal.SIGTERM)
        assert both.end() == 0


def test_a_standby_shows_which_scheduler_leads_until_it_leads_itself(tmp_path: Path, vhost: Broker) -> None:
    folders = [tmp_path / "here", tmp_path / "there"]
    for folder in folders:
        folder.mkdir()
    first, second = (pool(folder, vhost.url, *HEALTH, command="scheduler", more=OFTEN) for folder in folders)
    with first as leader:
        pid = leading(leader)
        with second as standby:
            wait_until(lambda: known_leader(standby).endswith(f":{pid}"), TIMEOUT, "a standby that knows who leads")
            shown = run(tmp_path, environment(), "status", str(standby.process.pid))
            assert shown.code == 0, "a standby is ready"
            assert "scheduler main: standby, " in shown.out
            assert f":{pid} leads since 20" in " ".join(shown.out.split())
            leader.signal(signal.SIGTERM)
            assert leader.end() == 0
            leading(standby)
            standby.signal(signal.SIGTERM)
            assert standby.end() == 0


def test_a_scheduler_that_stalls_is_killed_and_replaced(tmp_path: Path, vhost: Broker) -> None:
    options = (*HEALTH, "--stall-timeout", "3")
    with pool(tmp_path, vhost.url, *options, command="scheduler", more=OFTEN) as scheduling:
        stopped = leading(scheduling)
        os.kill(stopped, signal.SIGSTOP)
        (stalled,) = scheduling.wait_for("process_stalled")
        assert stalled["pid"] == stopped
        leading(scheduling, other_than=stopped)
        assert not alive(stopped)
        scheduling.signal(signal.SIGTERM)
        assert scheduling.end() == 0


def test_a_scheduler_ends_if_its_supervisor_is_killed(tmp_path: Path, vhost: Broker) -> None:
    with pool(tmp_path, vhost.url, *HEALTH, command="scheduler", more=OFTEN) as scheduling:
        pid = leading(scheduling)
        scheduling.process.kill()
        wait_until(lambda: not alive(pid), TIMEOUT, "the end of the scheduler")
        assert len(scheduling.events("scheduler_stopped")) == 1, "it has returned its token"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_scheduler_alone_ends_with_code_0_and_leaves_nothing(
    tmp_path: Path, vhost: Broker, number: signal.Signals
) -> None:
    with pool(tmp_path, vhost.url, *HEALTH, command="scheduler", more=OFTEN) as scheduling:
        pid = leading(scheduling)
        assert [view["pid"] for view in views_of(scheduling)] == [pid]
        scheduling.signal(number)
        assert scheduling.end() == 0
        assert not alive(pid)
        assert scheduling.events("process_killed") == []


@pytest.mark.parametrize(
    ("options", "line"),
    [((), "The app shop:app has no schedules"), (("--file", "more.toml"), "/more.toml: cannot be read: No such file")],
)
def test_a_scheduler_that_can_never_run_is_one_line_and_exit_code_2(
    tmp_path: Path, vhost: Broker, options: tuple[str, ...], line: str
) -> None:
    with pool(tmp_path, vhost.url, "--no-log-json", *options, command="scheduler") as scheduling:
        assert scheduling.end() == 2
        last = scheduling.log.splitlines()[-1]
        assert last.startswith("amqpworker: ")
        assert line in last
