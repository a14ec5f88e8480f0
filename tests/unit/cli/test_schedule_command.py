"""`amqpworker schedule` without a broker: next times, tables, wrong input."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from amqpworker import App
from amqpworker.cli.schedule_listing import ListedSchedule, Row, read_leader, rows_of, show
from amqpworker.cli.schedule_times import next_times, show_times
from amqpworker.errors import MalformedReply
from amqpworker.model.headers import time_of
from tests.cli import Ended, run_here

APP = """
from datetime import UTC, datetime
from amqpworker import App
app = App("amqp://guest:hidden@127.0.0.1:1/")
nothing = App()
over = App()

@app.task(name="shop.clean_up")
def clean_up(days: int = 1) -> None: ...

clean_up.schedule("nightly", cron="30 2 * * *", tz="Europe/Paris")(days=3)
clean_up.schedule("hourly", every=3600)()
over.task(name="shop.clean_up")(lambda: None).schedule("last-year", every=60, end=datetime(2025, 1, 1, tzinfo=UTC))()
"""

# a Saturday; the clock in Paris changes in the night that follows
NOW = time_of("2026-03-28T00:00:00.000Z")
assert NOW is not None


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str | list[str]], Ended]:
    (tmp_path / "timeshop.py").write_text(APP)
    (tmp_path / "taken.toml").write_text('[[schedules]]\nname = "hourly"\ntask = "shop.clean_up"\nevery = 60\n')
    monkeypatch.delenv("AMQPWORKER_APP", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "timeshop", raising=False)
    return lambda line: run_here(capsys, *(line.split() if isinstance(line, str) else line))


@pytest.fixture
def app() -> App:
    app = App("amqp://127.0.0.1:1/")
    task = app.task(name="shop.clean_up")(lambda: None)
    task.schedule("nightly", cron="30 2 * * *", tz="Europe/Paris")()
    task.schedule("daily", every=86_400)()
    return app


@pytest.fixture(params=["Pacific/Auckland", "America/New_York"])
def elsewhere(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the test on a machine in another time zone."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


# ---- next times -------------------------------------------------------------------------------------------------------


def test_next_times_are_merged_and_each_is_in_the_zone_of_its_schedule(app: App, elsewhere: None) -> None:
    assert [
        (one.schedule, one.as_json()["time"], one.local_text()) for one in next_times(app.schedules.values(), NOW, 2)
    ] == [
        ("nightly", "2026-03-28T01:30:00.000Z", "2026-03-28 02:30:00+01:00"),
        ("daily", "2026-03-29T00:00:00.000Z", "2026-03-29 00:00:00+00:00"),
        ("nightly", "2026-03-29T01:00:00.000Z", "2026-03-29 03:00:00+02:00"),
        ("daily", "2026-03-30T00:00:00.000Z", "2026-03-30 00:00:00+00:00"),
    ]


def test_times_fit_80_columns_whatever_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    app = App("amqp://127.0.0.1:1/")
    task = app.task(name="a" * 255)(lambda: None)
    task.schedule("n" * 255, every=1.5)()
    show_times(next_times(app.schedules.values(), NOW, 2))
    show(rows_of(app.schedules, None, NOW), None)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert out.count("n") >= 3 * 255
    assert "2026-03-28 00:00:01.500Z" in out
    assert "2026-03-28 00:00:03Z" in out


def test_the_times_end_before_dates_do(app: App) -> None:
    far = time_of("9999-12-28T00:00:00.000Z")
    assert far is not None
    times = next_times([app.schedules["daily"]], far, 100)
    assert [one.as_json()["time"][:10] for one in times] == ["9999-12-29", "9999-12-30"]


def test_next_shows_all_schedules_or_one(cli: Callable[[str], Ended]) -> None:
    ended = cli("schedule next --app timeshop:app")
    assert (ended.code, ended.err) == (0, "")
    assert max(map(len, ended.out.splitlines())) <= 80
    assert "\x1b" not in ended.out
    assert (ended.out.count("hourly"), ended.out.count("nightly")) == (1, 1)
    times = [line[:20] for line in ended.out.splitlines()[2:]]
    assert times == sorted(times)
    assert cli("schedule next nightly -n 3 --app timeshop:app").out.count("nightly") == 3


def test_next_as_json_has_times_as_the_wire_writes_them(cli: Callable[[str], Ended]) -> None:
    (one,) = cli("schedule next nightly -n 1 --json --app timeshop:app").json
    assert one["schedule"] == "nightly"
    assert one["time"].endswith(":30:00.000Z")
    local = datetime.fromisoformat(one["local"])
    assert (local.hour, local.minute) == (2, 30)
    assert local.astimezone(UTC) == datetime.fromisoformat(one["time"])


def test_many_times_are_shown_in_seconds(cli: Callable[[str], Ended]) -> None:
    assert len(cli("schedule next nightly -n 10000 --json --app timeshop:app").json) == 10_000


@pytest.mark.parametrize(
    ("target", "shown"), [("nothing", "The app has no schedules."), ("over", "No schedule fires any more.")]
)
def test_without_any_time_the_exit_code_is_1(cli: Callable[[str], Ended], target: str, shown: str) -> None:
    assert cli(f"schedule next --app timeshop:{target}") == Ended(1, f"{shown}\n", "")
    assert cli(f"schedule next --json --app timeshop:{target}") == Ended(1, "[]\n", "")


def test_schedules_may_be_in_a_file(cli: Callable[[str], Ended], tmp_path: Path) -> None:
    (tmp_path / "more.toml").write_text(
        '[[schedules]]\nname = "weekly"\ntask = "shop.clean_up"\ncron = "0 0 * * MON"\n'
    )
    assert cli("schedule next weekly --app timeshop:app").code == 2
    assert cli("schedule next weekly -n 2 --file more.toml --app timeshop:app").out.count("00:00:00Z") == 2


# ---- what the leader knows --------------------------------------------------------------------------------------------


def test_schedules_of_the_leader_and_of_the_app_are_listed_together(app: App) -> None:
    leader = read_leader(b'{"leader": "h:1", "schedules": [{"name": "old", "task": "t"}, {"name": "daily"}], "new": 1}')
    rows = list(rows_of(app.schedules, leader, NOW))
    assert [(row.schedule.name, row.leader is leader) for row in rows] == [
        ("daily", True),
        ("nightly", False),
        ("old", True),
    ]
    assert rows[1].as_json()["next"] == "2026-03-28T01:30:00.000Z"


def test_a_schedule_that_the_leader_does_not_have_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    leader = read_leader(b'{"leader": "h:1", "schedules": [{"name": "a"}]}')
    show([Row(leader.schedules[0], leader)], leader)
    assert "not in the leader" not in capsys.readouterr().out
    show([Row(ListedSchedule(name="b"), None)], leader)
    assert "not in the leader" in capsys.readouterr().out


def test_names_cannot_act_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    leader = read_leader(
        b'{"leader": "h", "schedules": [{"name": "\\u001b[2J", "task": "[bold]x", "timing": "a\\nb"}]}'
    )
    show([Row(leader.schedules[0], leader)], leader)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[bold]x" in out


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (None, "the value"),
        (b"[]", "the value"),
        (b"{}", "leader"),
        (b'{"leader": "h", "schedules": [{"name": "a", "next": "tomorrow, maybe"}, {}]}', "schedules.1.name"),
        (b'{"leader": "h", "schedules": [], "since": 1.5}', "since"),
    ],
)
def test_a_reply_of_another_form_is_refused_with_the_place(value: bytes | None, place: str) -> None:
    with pytest.raises(MalformedReply, match=f"^The reply of the leader cannot be read: {place}: "):
        read_leader(value)


# ---- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("schedule list", "Missing option '--app'"),
        ("schedule next --app timeshop:nope", "has no 'nope'"),
        ("schedule next nigthly --app timeshop:app", "The app has no schedule 'nigthly' (did you mean nightly?)."),
        ("schedule run weekly --app timeshop:app", "it has hourly, nightly. Schedules in a TOML file need --file."),
        ("schedule pause nightly nigthly --app timeshop:app", "did you mean nightly?"),
        ("schedule resume a --app timeshop:nothing", "it has none."),
        ("schedule pause --app timeshop:app", "Missing argument 'SCHEDULE'"),
        ("schedule run --app timeshop:app", "Missing argument 'SCHEDULE'"),
        ("schedule next -n 0 --app timeshop:app", "'-n'"),
        ("schedule next -n -1 --app timeshop:app", "'-n'"),
        ("schedule next -n 10001 --app timeshop:app", "'-n'"),
        ("schedule next -n many --app timeshop:app", "'-n'"),
        ("schedule list --file no-such.toml --app timeshop:app", "no-such.toml"),
        ("schedule next --file taken.toml --app timeshop:app", "hourly"),
        (["schedule", "list", "--name", "", "--app", "timeshop:app"], "Scheduler name must be a non-empty string"),
        ("schedule pause nightly --name amq.x --app timeshop:app", "Scheduler name must not begin with 'amq.'"),
    ],
)
def test_wrong_input_is_reported_in_one_line_with_exit_code_2(
    cli: Callable[[str | list[str]], Ended], line: str | list[str], told: str
) -> None:
    ended = cli(line)
    assert told in ended.complaint()
    assert (ended.code, ended.out) == (2, "")
