"""Which options of a schedule are valid, and what is wrong with the others."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from amqpworker import App, ConfigError, InvalidArguments
from amqpworker.schedules.cron import Cron
from amqpworker.schedules.definition import Schedule
from amqpworker.schedules.interval import Interval
from amqpworker.schedules.window import Window
from amqpworker.task import Task
from tests.unit.schedules.times import MINUTE, utc

URL = "amqp://guest:guest@127.0.0.1:1/"
START, END = datetime(2026, 3, 1, 10, tzinfo=UTC), datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(URL, results=f"sqlite:///{tmp_path}/results.db")


@pytest.fixture
def report(app: App) -> Task[[str], None]:
    @app.task(name="shop.report", queue="reports")
    def report(day: str) -> None: ...

    return report


def test_a_schedule_is_its_task_s_message_and_its_times(app: App, report: Task[[str], None]) -> None:
    made = report.options(headers={"tenant": "acme"}, expires=50, queue="other", resend=False).schedule(
        "nightly",
        cron=" 30  2 * * * ",
        tz="Europe/Paris",
        jitter=timedelta(seconds=5),
        overlap="skip",
        misfire="all",
        grace=timedelta(minutes=5),
    )("today")
    message = report.options(headers={"tenant": "acme"}, expires=50, queue="other", resend=False).message("today")
    timing = Cron("30 2 * * *", "Europe/Paris")
    assert made == Schedule("nightly", replace(message, id=made.message.id), timing, 5.0, "skip", "all", 300.0)
    assert app.schedules == {"nightly": made}
    assert str(made) == "nightly: shop.report, 30 2 * * * Europe/Paris"


def test_by_default_each_tick_is_sent_as_it_is_and_one_after_a_gap_of_a_minute(report: Task[[str], None]) -> None:
    made = report.schedule("s", every=300)("today")
    assert (made.timing, made.message.queue) == (Interval(5 * MINUTE), "reports")
    assert (made.jitter, made.overlap, made.misfire, made.grace) == (0.0, "allow", "once", 60.0)


@pytest.mark.parametrize(
    ("options", "timing"),
    [
        ({"every": timedelta(hours=6)}, Interval(360 * MINUTE)),
        ({"every": 1}, Interval(1000)),
        ({"every": 1.5004}, Interval(1500)),
        ({"every": 1.001}, Interval(1001)),
        ({"cron": "* * * * *"}, Cron("* * * * *", "UTC")),
        ({"every": 300, "start": START}, Window(Interval(300_000, utc("2026-03-01T10:00")), utc("2026-03-01T10:00"))),
        ({"every": 300, "end": END}, Window(Interval(300_000), None, utc("2026-03-01T12:00"))),
        (
            {"every": 300, "start": START, "end": START},
            Window(Interval(300_000, utc("2026-03-01T10:00")), utc("2026-03-01T10:00"), utc("2026-03-01T10:00")),
        ),
        (
            {"cron": "0 * * * *", "start": START.astimezone(timezone(timedelta(hours=5)))},
            Window(Cron("0 * * * *"), utc("2026-03-01T10:00")),
        ),
    ],
)
def test_cron_or_every_and_start_and_end_are_its_times(
    report: Task[[str], None], options: dict[str, Any], timing: Any
) -> None:
    assert report.schedule("s", **options)("today").timing == timing


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "give cron=… or every=…"),
        ({"cron": "* * * * *", "every": 60}, "give either cron=… or every=…, not both"),
        ({"cron": 5}, "cron=5: it must be a string, such as '30 2 * * *'"),
        ({"cron": "0 0 30 2 *"}, "cron='0 0 30 2 *': the field for the day-of-month is not valid, or it never fires"),
        ({"cron": "0 0 LW * */7"}, "cron='0 0 LW * */7': it does not fire within 50 years"),
        ({"cron": "* * * * *", "tz": "Mars"}, "tz='Mars': unknown time zone"),
        ({"cron": "* * * * *", "tz": UTC}, "tz=datetime.timezone.utc: it must be the name of a time zone, such as"),
        ({"every": 60, "tz": "Europe/Paris"}, "tz='Europe/Paris' has no effect with every=…, which counts elapsed"),
        ({"every": 0.999}, "every=0.999: it must be at least 1 second"),
        ({"every": 0}, "every=0: it must be at least 1 second"),
        ({"every": -5}, "every=-5: it must be zero or more seconds"),
        ({"every": float("nan")}, "every=nan: it must be zero or more seconds"),
        ({"every": float("inf")}, "every is too long"),
        ({"every": "5 min"}, "every='5 min': a duration is a number of seconds or a timedelta"),
        ({"every": True}, "every=True: a duration is a number of seconds or a timedelta"),
        ({"every": 60, "start": datetime(2026, 3, 1)}, "must be timezone-aware"),  # noqa: DTZ001 - that is the mistake
        ({"every": 60, "end": date(2026, 3, 1)}, "end=datetime.date(2026, 3, 1): it must be a timezone-aware datetime"),
        ({"every": 60, "start": "2026-03-01"}, "start='2026-03-01': it must be a timezone-aware datetime"),
        (
            {"every": 60, "start": END, "end": START},
            "end=2026-03-01T10:00:00.000Z: it is before the first time, 2026-03-01T12:00:00.000Z",
        ),
        ({"cron": "30 12 * * *", "start": START, "end": END}, "it is before the first time, 2026-03-01T12:30:00.000Z"),
        ({"every": 60, "end": datetime(1960, 1, 1, tzinfo=UTC)}, "it is before the first time"),
        ({"every": 60, "jitter": -1}, "jitter=-1: it must be zero or more seconds"),
        ({"every": 60, "jitter": timedelta(days=4000)}, "jitter is too long"),
        ({"every": 60, "grace": -1}, "grace=-1: it must be zero or more seconds"),
        ({"every": 60, "grace": None}, "grace=None: a duration is a number of seconds"),
        ({"every": 60, "overlap": "queue"}, "overlap='queue': it must be one of 'allow', 'skip'"),
        ({"every": 60, "misfire": []}, "misfire=[]: it must be one of 'once', 'skip', 'all'"),
    ],
)
def test_an_option_that_is_not_valid_is_an_error_that_names_the_schedule_and_the_option(
    app: App, report: Task[[str], None], options: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^Schedule 'nightly': .*{re.escape(text)}(?:.*[^.])?\.$"):
        report.schedule("nightly", **options)("today")
    assert app.schedules == {}


@pytest.mark.parametrize("name", ["", "n" * 256, "ü" * 128, "a\nb", "a\0", "\x1b[31m", "\x85", 5, None, "\ud800"])
def test_a_name_is_text_that_amqp_and_terminals_can_carry(report: Task[[str], None], name: Any) -> None:
    with pytest.raises(ConfigError, match=r"^Schedule name must be a string of 1 to 255 bytes of UTF-8 without contr"):
        report.schedule(name, every=60)("today")


@pytest.mark.parametrize("name", ["nightly", "Nachtlauf für Köln", "shop:report/5", "n" * 255])
def test_a_name_may_have_spaces_and_letters_of_any_language(report: Task[[str], None], name: str) -> None:
    assert report.schedule(name, every=60)("today").name == name


@pytest.mark.parametrize("options", [{"id": "5"}, {"delay": 5}, {"at": END.replace(year=2030)}, {"delay": 0}])
def test_a_tick_s_own_id_and_due_time_cannot_be_options(report: Task[[str], None], options: dict[str, Any]) -> None:
    (option,) = options
    with pytest.raises(ConfigError, match=rf"^Schedule 's': options\({option}=…\) cannot be used with a schedule\.$"):
        report.options(**options).schedule("s", every=60)("today")


def test_a_tick_cannot_expire_before_its_jitter_is_over(report: Task[[str], None]) -> None:
    assert report.options(expires=5).schedule("s", every=60, jitter=4.9)("today").message.expires == 5
    with pytest.raises(ConfigError, match=r"options\(expires=5\) must be more than the jitter of 5 s"):
        report.options(expires=5).schedule("t", every=60, jitter=5)("today")
    with pytest.raises(ConfigError, match="must be a duration: it is counted from each tick"):
        report.options(expires=END.replace(year=2030)).schedule("t", every=60)("today")


def test_arguments_that_do_not_fit_the_task_are_refused_as_they_are_by_send(
    app: App, report: Task[[str], None]
) -> None:
    with pytest.raises(InvalidArguments, match="day"):
        report.schedule("s", every=60)(5)  # type: ignore[arg-type]
    assert app.schedules == {}


def test_options_for_a_call_have_no_schedule(report: Task[[str], None]) -> None:
    with pytest.raises(AttributeError, match=r"schedule\(\) does not accept timeout"):
        report.options(timeout=5).schedule  # type: ignore[attr-defined] # noqa: B018
