"""The unit that `amqpworker unit` prints, under a real systemd."""

from __future__ import annotations

import signal
import threading

from tests.support import wait_until
from tests.systemd.conftest import UNIT, Service


def test_start_returns_once_every_process_consumes_and_the_status_shows_it(service: Service) -> None:
    service.install("-p", "2", "-t", "2")
    service.start()
    assert service.broker.consumers("work") == 2
    wait_until(lambda: service.status() == "2/2 consuming, 0 running, 0 done", what=service.status())
    shown = service.machine.run("cat", f"/proc/{service.pid()}/environ", f"/proc/{service.pid()}/cmdline").stdout
    assert "amqp://" not in shown, "the URL is neither in the environment nor in what ps shows"


def test_stop_under_load_finishes_what_runs_and_ends_well(service: Service) -> None:
    service.install("-p", "2", "-t", "2")
    service.start()
    for number in range(40):
        service.send("slow", seconds=0.5, mark=str(number))
    wait_until(lambda: len(service.ledger()) >= 8, what="some that run")
    service.machine.systemctl("stop", UNIT)
    assert service.machine.show(UNIT, "Result") == "success"
    begun = {line.split()[1] for line in service.ledger() if line.startswith("begin")}
    ended = {line.split()[1] for line in service.ledger() if line.startswith("end")}
    assert begun == ended
    assert service.broker.count("work") == 40 - len(ended)


def test_reload_loses_no_message_and_never_leaves_queues_without_a_consumer(service: Service) -> None:
    service.install("-p", "2", "-t", "2")
    service.start()
    fewest: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            fewest.append(service.broker.consumers("work"))

    watching = threading.Thread(target=watch)
    watching.start()
    before = set(service.children())
    service.write_app('\nnote("new code")\n')
    service.machine.systemctl("reload", UNIT)
    for number in range(60):
        service.send("slow", seconds=0.05, mark=str(number))
    wait_until(lambda: service.ledger().count("new code") == 2, 60, "two new processes")
    wait_until(lambda: sum(line.startswith("end") for line in service.ledger()) == 60, 60, "all tasks")
    wait_until(lambda: not before & set(service.children()), 60, "the end of the old processes")
    done.set()
    watching.join()
    assert min(fewest) >= 2
    assert len(set(service.ledger())) == 1 + 2 * 60, "none lost, none twice"
    wait_until(lambda: service.machine.show(UNIT, "ActiveState") == "active", what="the end of the reload")


def test_a_supervisor_that_hangs_is_ended_by_the_watchdog_and_started_again(service: Service) -> None:
    service.install("-p", "1", changes={"WatchdogSec=30": "WatchdogSec=3"})
    service.start()
    old = service.pid()
    service.machine.run("kill", "-STOP", str(old))
    wait_until(lambda: service.pid() not in {0, old}, 60, "another supervisor")
    wait_until(lambda: service.machine.show(UNIT, "ActiveState") == "active", 60, "an active unit")
    assert service.broker.consumers("work") == 1
    assert service.machine.show(UNIT, "NRestarts") == "1"


def test_a_supervisor_that_is_killed_leaves_no_orphan_and_the_unit_comes_back(service: Service) -> None:
    service.install("-p", "2")
    service.start()
    old = {service.pid(), *service.children()}
    assert len(old) == 3
    service.machine.run("kill", "-KILL", str(service.pid()))
    wait_until(lambda: service.machine.show(UNIT, "NRestarts") == "1", 60, "a restart")
    wait_until(lambda: service.machine.show(UNIT, "ActiveState") == "active", 60, "an active unit")
    assert not old & set(service.machine.processes(UNIT))
    assert service.broker.consumers("work") == 2


def test_a_mistake_in_the_configuration_is_not_tried_again_and_again(service: Service) -> None:
    service.install("-p", "1")
    (service.folder / "shop.py").write_text("no Python")
    assert service.machine.run("systemctl", "start", UNIT).returncode != 0
    assert service.machine.show(UNIT, "NRestarts") == "0"
    assert service.machine.show(UNIT, "ExecMainStatus") == "2"
    assert "Module 'shop' cannot be imported" in service.machine.journal()


def test_a_unit_runs_the_pools_of_a_file_and_a_mistake_in_it_is_reported(service: Service) -> None:
    file = service.folder / "pools.toml"
    pools = "".join(f'[[pools]]\nname = "{name}"\napp = "shop:app"\nprocesses = 1\n' for name in ("one", "two"))
    file.write_text(pools)
    service.install("--config", "/srv/shop/pools.toml")
    service.start()
    assert service.broker.consumers("work") == 2
    wait_until(lambda: "2/2 consuming" in service.status(), what="a status")
    service.machine.systemctl("stop", UNIT)
    file.write_text(pools + "thread = 3\n")
    assert service.machine.run("systemctl", "start", UNIT).returncode != 0
    assert service.machine.show(UNIT, "ExecMainStatus") == "2"
    service.wait_for("/srv/shop/pools.toml: pool 'two', thread: unknown key (did you mean threads?).")


def test_a_scheduler_beside_a_pool_is_ready_with_it_and_reads_its_file_again_at_a_reload(service: Service) -> None:
    def write(mark: str) -> None:
        table = f'name = "often"\ntask = "shop.slow"\narguments = {{ seconds = 0, mark = "{mark}" }}\nevery = 1\n'
        (service.folder / "schedules.toml").write_text(f"[[schedules]]\n{table}")

    write("old")
    service.install("-p", "1", "--scheduler", "--scheduler-file", "schedules.toml")
    service.start()
    wait_until(lambda: service.status().startswith("2/2 consuming"), what=service.status())
    wait_until(lambda: service.status().endswith("scheduler main leads"), 40, "a scheduler that leads")
    wait_until(lambda: "end old" in service.ledger(), 40, "a tick")
    write("new")
    service.machine.systemctl("reload", UNIT)
    wait_until(lambda: "end new" in service.ledger(), 60, "a tick of the new schedule")
    wait_until(lambda: service.machine.show(UNIT, "ActiveState") == "active", what="the end of the reload")
    service.machine.systemctl("stop", UNIT)
    assert service.machine.show(UNIT, "Result") == "success"


def test_a_pool_without_its_broker_waits_with_that_status_and_is_neither_timed_out_nor_killed(service: Service) -> None:
    nobody = "amqp://127.0.0.1:1/"
    service.install(
        "-p", "1", changes={"TimeoutStartSec=90": "TimeoutStartSec=6", "WatchdogSec=30": "WatchdogSec=4"}, url=nobody
    )
    service.machine.systemctl("start", "--no-block", UNIT)
    wait_until(lambda: "waiting for the broker" in service.status(), what="a status")
    threading.Event().wait(15)
    assert service.machine.show(UNIT, "ActiveState") == "activating"
    assert service.machine.show(UNIT, "NRestarts") == "0"


def test_a_process_that_is_out_of_memory_is_replaced_and_the_unit_lives(service: Service) -> None:
    service.install("-p", "2", "-t", "1")
    service.write_app("""
@app.task(name="shop.hungry", queue="work", retry=None)
def hungry() -> None:
    if not (HERE / "eaten").exists():
        (HERE / "eaten").touch()
        food = [b"x" * 50_000_000 + bytes([n]) for n in range(100)]
    note("fed")
""")
    service.start()
    supervisor = service.pid()
    service.machine.limit_memory(UNIT, 400_000_000)
    service.send("hungry")
    service.wait_for("process_died")
    wait_until(lambda: "fed" in service.ledger(), 60, "its second run")
    assert service.pid() == supervisor
    assert service.machine.show(UNIT, "ActiveState") == "active"
    assert f"signal {signal.SIGKILL.name}" in service.machine.journal()


def test_a_task_that_takes_its_process_down_is_tried_alone_within_the_permissions_of_the_unit(service: Service) -> None:
    poison = """

@app.task(name="shop.poison", queue="work", retry=None)
def poison() -> None:
    note(f"poison {os.getpid()}")
    ctypes.string_at(0)
"""
    service.install("-p", "1", "-t", "2")
    service.write_app(poison)
    service.start()
    service.send("poison")
    letter = service.broker.wait_for_message("work.dead", 60)
    assert letter.headers["aw-dead-reason"] == "crashed"
    assert letter.headers["aw-error-type"] == "signal SIGSEGV"
    assert "in poison" in letter.headers["aw-traceback"]
    assert len(set(service.ledger())) == 4, "once in a worker, three times alone"
    assert service.machine.show(UNIT, "NRestarts") == "0"


def test_the_unit_may_touch_so_little_that_systemd_calls_it_safe(service: Service) -> None:
    service.install("-p", "1")
    told = service.machine.run("systemd-analyze", "security", "--no-pager", UNIT).stdout
    level = float(told.rpartition("Overall exposure level for shop.service: ")[2].split()[0])
    assert level <= 2.0, told


def test_a_reload_follows_the_link_that_the_unit_names(service: Service) -> None:
    current, release = service.folder.with_name("current"), service.folder.with_name("shop-2")
    current.unlink(missing_ok=True)
    current.symlink_to(service.folder.name)
    service.install("-p", "1", changes={"/srv/shop": "/srv/current"})
    service.start()
    release.mkdir(exist_ok=True)
    app = (service.folder / "shop.py").read_text()
    (release / "shop.py").write_text(app + "\nnote(f'loaded from {Path(__file__).parent}')\n")
    link = current.with_name("next")
    link.symlink_to(release.name)
    link.rename(current)
    service.machine.systemctl("reload", UNIT)
    wait_until(lambda: service.ledger() == ["loaded from /srv/shop-2"], 60, "the process of the new release")
