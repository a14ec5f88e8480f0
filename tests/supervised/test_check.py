"""`amqpworker worker --check`: it shows what would run, runs nothing, and leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli import environment, run
from tests.pools import alive
from tests.support import wait_until

DOUBTFUL = """
import os, sys
from amqpworker import App
print("imported")
with open("pids", "a") as file:
    file.write(f"{os.getpid()} ")
app = App("amqp://user:hidden@127.0.0.1:1/")
@app.task(queue="emails", time_limit=4000)
def send() -> None: ...
@app.task(queue="reports")
def report() -> None: ...
"""


def test_a_check_shows_what_would_run_and_what_is_doubtful_and_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "mail.py").write_text(DOUBTFUL)
    options = ("worker", "mail:app", "-p", "3", "-t", "4", "-q", "emails", "-q", "reports:2,prefetch=1", "--check")
    ended = run(tmp_path, environment(), *options)
    assert ended.code == 0
    rows = [line.split() for line in ended.out.splitlines()]
    assert rows[0] == ["pool", "app", "processes", "queue", "threads", "prefetch"]
    assert rows[2:] == [["main", "mail:app", "3", "emails", "4", "auto"], ["reports", "2", "of", "its", "own", "1"]]
    assert ended.err.splitlines() == [
        "imported",
        "amqpworker: Warning: Queue 'reports' has a prefetch of 1, below its 2 threads: some of them never run.",
        (
            "amqpworker: Warning: Task 'mail.send' may run for 4000 s, beyond the ack timeout of 1800 s: the broker "
            "redelivers its message meanwhile."
        ),
    ]
    (main,) = run(tmp_path, environment(), *options, "--json").json["pools"]
    assert [(one["queue"], one["prefetch"]) for one in main["queues"]] == [("emails", "auto"), ("reports", 1)]
    assert (main["name"], main["processes"], len(main["warnings"])) == ("main", 3, 2)
    assert main["max_suspects"] == 4, "as many as threads, 4 at most"


def test_a_check_warns_of_queues_without_tasks_and_of_names_that_begin_with_a_folder(tmp_path: Path) -> None:
    package = tmp_path / "src" / "shop"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "tasks.py").write_text(
        "from amqpworker import App\napp = App()\napp.queue('reports')\n@app.task(queue='emails')\ndef send() -> None: ...\n"
    )
    ended = run(tmp_path, environment(), "worker", "src.shop.tasks:app", "-q", "emails", "-q", "reports", "--check")
    assert ended.code == 0
    first, second = ended.err.splitlines()
    assert first.startswith("amqpworker: Warning: No task names queue 'reports': is each module")
    assert second.startswith("amqpworker: Warning: Task names begin with 'src', which is not a package")
    ended = run(tmp_path, environment(), "worker", "src/shop/tasks.py:app")
    assert ended.complaint().endswith(
        "names a file: its module is found from the folder src: go there (or install the project), and write shop.tasks:app."
    )


SCHEDULED = """
from amqpworker import App
app = App("amqp://user:hidden@127.0.0.1:1/")
@app.schedule("nightly", cron="30 2 * * *", tz="Europe/Paris")
@app.task(name="shop.clean", queue="night")
def clean() -> None: ...
@app.task(name="shop.mark", queue="night")
def mark(what: str) -> None: ...
"""
EVERY_HOUR = '[[schedules]]\nname = "hourly"\ntask = "shop.mark"\narguments = { what = "x" }\nevery = 3600\n'


def test_a_check_of_a_scheduler_shows_the_schedules_of_the_app_and_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SCHEDULED)
    (tmp_path / "more.toml").write_text(EVERY_HOUR)
    ended = run(tmp_path, environment(), "scheduler", "shop:app", "--file", "more.toml", "--check")
    assert (ended.code, ended.err) == (0, "")
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert lines[:2] == ["scheduler main (shop:app)", "schedule task queue times next"]
    assert lines[3].startswith("nightly shop.clean night 30 2 * * *")
    assert lines[-1].startswith("hourly shop.mark night every 1 h 20")
    options = ("worker", "shop:app", "-p", "1", "--scheduler", "--scheduler-file", "more.toml", "--check", "--json")
    checked = run(tmp_path, environment(), *options).json
    assert [pool["name"] for pool in checked["pools"]] == ["main"]
    assert (checked["scheduler"]["name"], checked["scheduler"]["file"]) == ("main", "more.toml")
    assert [one["name"] for one in checked["scheduler"]["schedules"]] == ["nightly", "hourly"]
    assert run(tmp_path, environment(), "worker", "shop:app", "--check", "--json").json["scheduler"] is None


def test_a_check_reports_what_is_wrong_with_a_scheduler(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SCHEDULED)
    (tmp_path / "more.toml").write_text(EVERY_HOUR.replace("what", "who"))
    options = ("worker", "shop:app", "--scheduler", "--scheduler-file", "more.toml", "--check")
    ended = run(tmp_path, environment(), *options)
    assert ended.code == 2
    assert ended.complaint().startswith("Pool 'scheduler': more.toml: schedule 'hourly', ")
    ended = run(tmp_path, environment(), "scheduler", "shop:app", "--name", "x" * 240, "--check")
    assert (ended.code, ended.complaint()[:52]) == (2, "--name: Scheduler name must be at most 235 bytes of ")
    (tmp_path / "shop.py").write_text("1 / 0\n")
    ended = run(tmp_path, environment(), "scheduler", "shop:app", "--check")
    assert (ended.code, ended.err.count("Traceback")) == (2, 1)
    assert ended.err.splitlines()[-1].startswith("amqpworker: 'shop:app' cannot be imported: ZeroDivisionError")


def test_a_check_imports_the_apps_in_processes_of_their_own_and_reports_what_is_wrong_with_each(tmp_path: Path) -> None:
    (tmp_path / "mail.py").write_text("1 / 0\n")
    (tmp_path / "gone.py").write_text("import os\nos._exit(0)\n")
    (tmp_path / "dead.py").write_text("import os\nos.kill(os.getpid(), 11)\n")
    names = ("mail", "gone", "dead")
    (tmp_path / "pools.toml").write_text("".join(f'[[pools]]\nname = "{one}"\napp = "{one}:app"\n' for one in names))
    ended = run(tmp_path, environment(), "worker", "--config", "pools.toml", "--check")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.count("Traceback") == 1
    assert ended.err.splitlines()[-1] == (
        "amqpworker: Pool 'mail': 'mail:app' cannot be imported: ZeroDivisionError: division by zero. "
        "Pool 'gone': 'gone:app' cannot be imported: its process ended by exit code 0. "
        "Pool 'dead': 'dead:app' cannot be imported: its process ended by signal SIGSEGV."
    )


def test_a_check_of_an_app_that_hangs_or_forks_at_its_import_ends_and_leaves_nothing(tmp_path: Path) -> None:
    forks = (
        "import os, time\nif (pid := os.fork()) == 0:\n    os.setsid()\n    time.sleep(3600)\n"
        "open('pid', 'w').write(str(pid))\n"
    )
    (tmp_path / "hangs.py").write_text(f"{forks}open('own', 'w').write(str(os.getpid()))\ntime.sleep(3600)\n")
    ended = run(tmp_path, environment(), "worker", "hangs:app", "--check", "--start-timeout", "3")
    assert ended.code == 2
    assert ended.complaint().startswith("'hangs:app' is not imported within 3 s: ")
    (tmp_path / "forks.py").write_text(
        forks + "from amqpworker import App\napp = App()\napp.task(name='t', queue='emails')(lambda: 1)\n"
    )
    first = (tmp_path / "pid").read_text()
    assert run(tmp_path, environment(), "worker", "forks:app", "-q", "emails", "--check").code == 0
    pids = [int(one) for one in (first, (tmp_path / "own").read_text(), (tmp_path / "pid").read_text())]
    wait_until(lambda: not any(map(alive, pids)), what="the end of what the apps have started")


def test_a_check_of_an_app_that_closes_all_descriptors_and_hangs_ends(tmp_path: Path) -> None:
    (tmp_path / "hangs.py").write_text("import os, time\nos.closerange(3, 1000)\ntime.sleep(3600)\n")
    ended = run(tmp_path, environment(), "worker", "hangs:app", "--check", "--start-timeout", "3")
    assert ended.code == 2
    assert ended.complaint().startswith("'hangs:app' is not imported within 3 s: ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_check_that_is_broken_off_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "hangs.py").write_text("import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(3600)\n")
    command = [sys.executable, "-m", "amqpworker", "worker", "hangs:app", "--check"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment(), stderr=subprocess.PIPE)
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    process.send_signal(number)
    _, told = process.communicate(timeout=15)
    assert (process.returncode, told) == (128 + number, b"")
    assert not alive(int((tmp_path / "pid").read_text()))
