"""The schedules of an app."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from amqpworker import App, ConfigError
from amqpworker.scheduler.scheduler_assembly import schedules_of
from amqpworker.scheduler.scheduler_options import SchedulerOptions

URL = "amqp://guest:guest@127.0.0.1:1/"


@pytest.fixture
def app() -> App:
    return App(URL)


def test_a_decorator_adds_schedules_to_a_task_and_returns_the_task(app: App) -> None:
    @app.schedule("nightly", cron="30 2 * * *", tz="Europe/Paris")
    @app.schedule("often", every=300, jitter=5)
    @app.task(name="shop.clean")
    def clean(days: int = 5) -> int:
        return days

    assert clean(3) == 3
    assert {name: str(one) for name, one in app.schedules.items()} == {
        "often": "often: shop.clean, every 5 min",
        "nightly": "nightly: shop.clean, 30 2 * * * Europe/Paris",
    }
    assert app.schedules["often"].message.body == b"{}"
    assert app.schedules["often"].jitter == 5.0


def test_a_task_of_another_program_and_one_that_is_a_coroutine_can_have_schedules(app: App) -> None:
    @app.schedule("remote", every=60)
    @app.remote(name="billing.close")
    def close() -> None: ...

    @app.schedule("async", every=60)
    @app.task(name="shop.fetch")
    async def fetch() -> None: ...

    assert [one.message.task for one in app.schedules.values()] == ["billing.close", "shop.fetch"]


def test_a_task_that_needs_arguments_is_refused_by_the_decorator(app: App) -> None:
    @app.task(name="shop.report")
    def report(day: str) -> None: ...

    with pytest.raises(ConfigError, match=r"Schedule 's': task 'shop.report' needs arguments: write task.schedule"):
        app.schedule("s", every=60)(report)


def test_a_schedule_without_its_second_pair_of_parentheses_is_an_error_of_the_scheduler(app: App) -> None:
    @app.schedule("often", every=300)
    @app.task(name="shop.clean")
    def clean() -> None: ...

    options = SchedulerOptions(app="shop:app")
    add = clean.schedule("nightly", every=86400)
    with pytest.raises(
        ConfigError, match=r"^Schedule 'nightly' of the task 'shop.clean' is not complete: .*\(…\)\(\)\.$"
    ):
        schedules_of(app, options)
    add()
    assert list(schedules_of(app, options)) == ["often", "nightly"]


def test_a_function_that_is_not_a_task_is_refused_by_the_decorator(app: App) -> None:
    with pytest.raises(ConfigError, match=r"schedule\('s'\): write it above @app.task\(…\): it takes a task\.$"):
        app.schedule("s", every=60)(len)  # type: ignore[type-var]


def test_a_name_that_is_taken_is_an_error_that_names_both_tasks(app: App) -> None:
    @app.schedule("nightly", every=60)
    @app.task(name="shop.clean")
    def clean() -> None: ...

    @app.task(name="shop.report")
    def report() -> None: ...

    with pytest.raises(
        ConfigError, match=r"^Two schedules have the name 'nightly', those of the tasks 'shop.clean' and 'shop.r"
    ):
        app.schedule("nightly", every=90)(report)
    assert app.schedules["nightly"].message.task == "shop.clean"


def test_overlap_skip_needs_the_results_of_its_task(tmp_path: Path) -> None:
    app, storing = App(URL), App(URL, results=f"sqlite:///{tmp_path}/results.db")
    for one in (app, storing):
        one.task(name="shop.clean")(lambda: None)
        one.task(name="shop.quiet", result=False)(lambda: None)
        one.remote(name="billing.close")(lambda: None)
    with pytest.raises(ConfigError, match=r"^Schedule 's': overlap='skip' needs a result store: App\(results=…\)\.$"):
        app.schedule("s", every=60, overlap="skip")(app.tasks["shop.clean"])
    with pytest.raises(ConfigError, match=r"overlap='skip' needs results, and 'shop.quiet' has result=False\.$"):
        storing.schedule("s", every=60, overlap="skip")(storing.tasks["shop.quiet"])
    storing.schedule("s", every=60, overlap="skip")(storing.tasks["shop.clean"])
    storing.schedule("t", every=60, overlap="skip")(storing.remotes["billing.close"])


PROGRAM = """
import sys
from amqpworker import App
app = App("amqp://guest:guest@127.0.0.1:1/")

@app.task(name="a.b")
def task() -> None: ...

print(sorted({"cronsim", "amqpworker.schedules.cron"} & set(sys.modules)))
"""


def test_an_app_without_schedules_does_not_load_cronsim() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
