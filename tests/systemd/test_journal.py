"""What is in the journal of a real systemd, and how it is found there."""

from __future__ import annotations

import json
from typing import Any

from tests.support import wait_until
from tests.systemd.conftest import UNIT, Service

TASKS = """
@app.task(name="shop.fails", queue="work", retry=None)
def fails() -> None:
    print("a line of its own", file=sys.stderr, flush=True)
    raise ValueError("no such\\nuser")
"""


def entries(service: Service, *matches: str) -> list[dict[str, Any]]:
    """Return what journalctl finds."""
    told = service.machine.run("journalctl", "--no-pager", "-o", "json", "-u", UNIT, *matches).stdout
    return [json.loads(line) for line in told.splitlines()]


def test_lines_are_found_by_their_level_and_by_their_task(service: Service) -> None:
    service.write_app(TASKS)
    service.install("-p", "1", "-t", "1")
    service.start()
    (child,) = service.children()
    service.send("fails")
    (dead,) = wait_until(lambda: entries(service, "AMQPWORKER_EVENT=task_dead"), 40, "the line of the dead letter")
    assert (dead["AMQPWORKER_TASK"], dead["AMQPWORKER_QUEUE"]) == ("shop.fails", "work")
    assert dead["AMQPWORKER_ID"]
    assert dead["_PID"] == str(child)
    assert dead["MESSAGE"].startswith("task_dead ")
    assert "error=ValueError error_text='no such\\nuser'" in dead["MESSAGE"]
    assert dead["AMQPWORKER_ERROR_TEXT"] == "no such\nuser"
    found = entries(service, "AMQPWORKER_TASK=shop.fails")
    assert {one["AMQPWORKER_TASK"] for one in found} == {"shop.fails"}
    worse = {one.get("AMQPWORKER_EVENT") for one in entries(service, "-p", "warning")}
    assert "task_dead" in worse
    assert not worse & {"pool_started", "process_started", "queue_consuming"}
    plain = [one for one in entries(service) if one["MESSAGE"] == "a line of its own"]
    assert [one["_TRANSPORT"] for one in plain] == ["stdout"], "what tasks write themselves stays as it is"


def test_why_a_start_failed_is_found_among_the_errors(service: Service) -> None:
    (service.folder / "shop.py").write_text("app = None\n")
    service.install("-p", "1")
    assert service.machine.run("systemctl", "start", UNIT).returncode
    reason = "'shop:app' is of type NoneType"
    wait_until(lambda: any(reason in one["MESSAGE"] for one in entries(service, "-p", "err")), 20, "the reason")
    service.install("-p", "1", changes={"worker shop:app": "worker --thread 1 shop:app"})
    assert service.machine.run("systemctl", "start", UNIT).returncode
    reason = "No such option: --thread"
    wait_until(lambda: any(reason in one["MESSAGE"] for one in entries(service, "-p", "err")), 20, "the reason")


def test_a_supervisor_in_its_narrow_unit_has_an_orphan_reaper(service: Service) -> None:
    service.install("-p", "1")
    service.start()
    commands = [service.machine.run("cat", f"/proc/{pid}/cmdline").stdout for pid in service.machine.processes(UNIT)]
    assert sum("supervisor/orphan_reaper.py" in one for one in commands) == 1
    assert entries(service, "AMQPWORKER_EVENT=orphan_reaper_not_started") == []
    assert entries(service, "AMQPWORKER_EVENT=orphan_reaper_lost") == []
