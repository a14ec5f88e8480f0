"""The file with schedules: what it means, and how a mistake in it is reported."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker import App, ConfigError
from amqpworker.schedules.cron import Cron
from amqpworker.schedules.interval import Interval
from amqpworker.schedules.schedule_file import read_schedules
from amqpworker.schedules.window import Window
from tests.unit.schedules.times import utc

WHOLE = """
[[schedules]]
name = "nightly"
task = "shop.report"
arguments = { day = 2026-11-30, shops = ["a", "b"] }
cron = "30 2 * * *"
tz = "Europe/Paris"
start = 2026-03-01T10:00:00Z
end = 2027-03-01T10:00:00+01:00
jitter = 5
overlap = "skip"
misfire = "all"
grace = 300.5

[[schedules]]
name = "often"
task = "billing.close"
every = 7
"""
OFTEN = '[[schedules]]\nname = "often"\ntask = "billing.close"\nevery = 7\n'


@pytest.fixture
def app(tmp_path: Path) -> App:
    app = App("amqp://guest:guest@127.0.0.1:1/", results=f"sqlite:///{tmp_path}/results.db")

    @app.task(name="shop.report", queue="reports")
    def report(day: date, shops: list[str]) -> None: ...

    @app.remote(name="billing.close")
    def close() -> None: ...

    return app


def written(folder: Path, text: str) -> Path:
    path = folder / "schedules.toml"
    path.write_text(text)
    return path


def test_a_file_has_the_options_of_the_code(tmp_path: Path, app: App) -> None:
    nightly, often = read_schedules(written(tmp_path, WHOLE), app)
    timing = Window(Cron("30 2 * * *", "Europe/Paris"), utc("2026-03-01T10:00"), utc("2027-03-01T09:00"))
    assert (nightly.name, nightly.timing, nightly.jitter) == ("nightly", timing, 5.0)
    assert (nightly.overlap, nightly.misfire, nightly.grace) == ("skip", "all", 300.5)
    assert (nightly.message.task, nightly.message.queue) == ("shop.report", "reports")
    assert nightly.message.body == b'{"day":"2026-11-30","shops":["a","b"]}'
    assert (often.name, often.message.task, often.timing) == ("often", "billing.close", Interval(7000))
    assert app.schedules == {}, "those of a file are not the app's"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "schedules: write [[schedules]] in two brackets, and below it name = …"),
        ("[schedules]\nname = 5", "schedules: write [[schedules]] in two brackets, and below it name = …"),
        ("schedules = [5]", "schedule 1: must be a table, got 5"),
        (f"schedule = 5\n{OFTEN}", "schedule: unknown key (did you mean schedules?)"),
        ("[[schedules]]", "schedule 1, name: is missing; schedule 1, task: is missing"),
        (f"{OFTEN}graze = 5", "schedule 'often', graze: unknown key (did you mean grace?)"),
        (f"{OFTEN}colour = 5", "schedule 'often', colour: unknown key"),
        (f"{OFTEN}arguments = [5]", "schedule 'often', arguments: must be a table, got [5]"),
        (f'{OFTEN}cron = "* * * * *"', "schedule 'often', give either cron=… or every=…, not both"),
        (OFTEN.replace("7", "0.5"), "schedule 'often', every=0.5: it must be at least 1 second"),
        (
            OFTEN.replace("7", '"7 s"'),
            "schedule 'often', every='7 s': a duration is a number of seconds or a timedelta",
        ),
        (OFTEN.replace("every = 7", 'cron = "* * *"'), "schedule 'often', cron='* * *': it must have five fields"),
        (f"{OFTEN}start = 2026-03-01T10:00:00", "schedule 'often', start=datetime.datetime(2026, 3, 1, 10, 0) must be"),
        (f"{OFTEN}end = 2026-03-01", "schedule 'often', end=datetime.date(2026, 3, 1): it must be a timezone-aware"),
        (OFTEN.replace('"often"', "5"), "schedule 1, name: must be a string, got 5"),
        (OFTEN.replace('"often"', '""'), "schedule 1, Schedule name must be a string of 1 to 255 bytes"),
        (
            OFTEN.replace("close", "closed"),
            "schedule 'often', task: the app has no task 'billing.closed' (did you mean billing.close?)",
        ),
        (
            f"{OFTEN}arguments = {{ day = 5, self = 5 }}",
            "schedule 'often', Task 'billing.close': there is no parameter 'day'; there is no parameter 'self'",
        ),
        (
            f"{OFTEN}{OFTEN}",
            "schedule 'often', Two schedules have the name 'often', those of the tasks 'billing.close' and",
        ),
        (
            f"{OFTEN}jitter = -1\n{OFTEN.replace('often', 'b')}misfire = 5",
            "schedule 'often', jitter=-1: it must be zero or more seconds; schedule 'b', misfire=5: it must be one of",
        ),
        ("name = ", "is not TOML: Invalid value (at end of document)"),
    ],
)
def test_a_mistake_is_reported_on_one_line_with_the_file_the_schedule_and_the_key(
    tmp_path: Path, app: App, text: str, wrong: str
) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=rf"^{re.escape(str(path))}: {re.escape(wrong)}.*\.$") as caught:
        read_schedules(path, app)
    assert "\n" not in str(caught.value)


def test_a_name_that_the_code_has_too_is_an_error(tmp_path: Path, app: App) -> None:
    app.schedule("often", every=60)(app.remotes["billing.close"])
    with pytest.raises(ConfigError, match="schedule 'often', Two schedules have the name 'often'"):
        read_schedules(written(tmp_path, OFTEN), app)


def test_overlap_skip_needs_a_result_store(tmp_path: Path) -> None:
    app = App("amqp://guest:guest@127.0.0.1:1/")
    app.remote(name="billing.close")(lambda: None)
    with pytest.raises(ConfigError, match="schedule 'often', overlap='skip' needs a result store"):
        read_schedules(written(tmp_path, f'{OFTEN}overlap = "skip"'), app)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path, app: App) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file or directory"):
        read_schedules(tmp_path / "none.toml", app)
    (tmp_path / "latin.toml").write_bytes('name = "ü"'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.toml: is not TOML: it is not in UTF-8"):
        read_schedules(tmp_path / "latin.toml", app)


KEYS = st.sampled_from(["name", "task", "arguments", "cron", "every", "tz", "start", "overlap", "grace", "x"])
VALUES = st.sampled_from(
    ['"often"', '"billing.close"', "5", "-1", "1e400", "nan", "[]", "{}", "true", "2026-03-01", '"\\u0000"']
)


@given(st.dictionaries(KEYS, VALUES))
def test_whatever_is_in_a_file_it_is_a_schedule_or_an_error_that_names_the_file(table: dict[str, str]) -> None:
    app = App("amqp://guest:guest@127.0.0.1:1/")
    app.remote(name="billing.close")(lambda: None)

    class File(type(Path())):  # type: ignore[misc]
        def read_bytes(self) -> bytes:
            return "\n".join(["[[schedules]]", *(f"{key} = {value}" for key, value in table.items())]).encode()

    try:
        (schedule,) = read_schedules(File("schedules.toml"), app)
    except ConfigError as error:
        text = str(error)
    else:
        text = f"schedules.toml: {schedule.name}"
    assert text.startswith("schedules.toml: ")
