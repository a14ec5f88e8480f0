"""Times of cron expressions: changes of the clock, rare days, and the same times wherever the calculation begins."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.errors import ConfigError
from amqpworker.model.headers import EPOCH, MILLISECOND
from amqpworker.schedules.cron import Cron
from tests.docs import ROOT, table
from tests.unit.schedules.times import DAY, HOUR, MINUTE, shown, times, utc

PARIS, NEW_YORK, LORD_HOWE = "Europe/Paris", "America/New_York", "Australia/Lord_Howe"
SPRING = {PARIS: "2026-03-29", NEW_YORK: "2026-03-08", LORD_HOWE: "2026-10-04"}
AUTUMN = {PARIS: "2026-10-25", NEW_YORK: "2026-11-01", LORD_HOWE: "2026-04-05"}
EXPRESSIONS = (
    "30 2 * * *",
    "30 1 * * *",
    "0,30 1,2,3 * * *",
    "*/15 * * * *",
    "0 * * * *",
    "0 */2 * * *",
    "*/20 2 * * *",
)


def on_day(expression: str, zone: str, day: str) -> list[str]:
    """Return the times of one day in a zone, as its clock shows them, with the distance from UTC in hours."""
    around = utc(f"{day}T00:00")
    every = shown(list(times(Cron(expression, zone), around - DAY, around + 2 * DAY)), zone)
    return [one[6:] for one in every if one.startswith(day[5:])]


@pytest.mark.parametrize(
    ("expression", "zone", "expected"),
    [
        ("30 2 * * *", PARIS, ["03:00 +0200"]),
        ("0,30 2 * * *", PARIS, ["03:00 +0200"]),
        ("30 2,3 * * *", PARIS, ["03:00 +0200", "03:30 +0200"]),
        ("30 1 * * *", NEW_YORK, ["01:30 -0500"]),
        ("30 2 * * *", NEW_YORK, ["03:00 -0400"]),
        ("15 2 * * *", LORD_HOWE, ["02:30 +1100"]),
    ],
)
def test_a_time_in_the_gap_of_a_clock_change_is_the_end_of_the_gap(
    expression: str, zone: str, expected: list[str]
) -> None:
    assert on_day(expression, zone, SPRING[zone]) == expected


def test_a_midnight_that_does_not_exist_is_the_beginning_of_the_day() -> None:
    assert on_day("0 0 * * *", "Africa/Cairo", "2026-04-24") == ["01:00 +0300"]


def test_a_day_that_does_not_exist_is_the_beginning_of_the_next_one() -> None:
    found = list(times(Cron("0 12 30 * *", "Pacific/Apia"), utc("2011-12-01T00:00"), utc("2012-01-31T00:00")))
    assert shown(found, "Pacific/Apia") == ["12-31 00:00 +1400", "01-30 12:00 +1400"]


@pytest.mark.parametrize(
    ("expression", "zone", "expected"),
    [
        ("30 2 * * *", PARIS, ["02:30 +0200"]),
        ("30 1 * * *", NEW_YORK, ["01:30 -0400"]),
        ("30 2 * * *", NEW_YORK, ["02:30 -0500"]),
        ("0,30 1,2 * * *", NEW_YORK, ["01:00 -0400", "01:30 -0400", "02:00 -0500", "02:30 -0500"]),
        ("45 1 * * *", LORD_HOWE, ["01:45 +1100"]),
    ],
)
def test_a_time_in_a_repeated_hour_is_the_first_of_the_two(expression: str, zone: str, expected: list[str]) -> None:
    assert on_day(expression, zone, AUTUMN[zone]) == expected


@pytest.mark.parametrize("zone", [PARIS, NEW_YORK, LORD_HOWE])
@pytest.mark.parametrize("days", [SPRING, AUTUMN])
def test_steps_of_minutes_count_elapsed_time_through_a_clock_change(zone: str, days: dict[str, str]) -> None:
    around = utc(f"{days[zone]}T00:00")
    found = list(times(Cron("*/15 * * * *", zone), around - DAY, around + 2 * DAY))
    assert {after - before for before, after in pairwise(found)} == {15 * MINUTE}


@pytest.mark.parametrize("zone", [PARIS, NEW_YORK])
@pytest.mark.parametrize("days", [SPRING, AUTUMN])
def test_each_hour_counts_elapsed_time_through_a_clock_change(zone: str, days: dict[str, str]) -> None:
    around = utc(f"{days[zone]}T00:00")
    found = list(times(Cron("0 * * * *", zone), around - DAY, around + 2 * DAY))
    assert {after - before for before, after in pairwise(found)} == {HOUR}


@pytest.mark.parametrize(
    ("days", "expected"),
    [(SPRING, ["01:15 +1030", "03:15 +1100"]), (AUTUMN, ["01:15 +1100", "02:15 +1030", "03:15 +1030"])],
)
def test_a_minute_that_the_half_hour_of_lord_howe_jumps_over_is_left_out_of_each_hour(
    days: dict[str, str], expected: list[str]
) -> None:
    assert on_day("15 * * * *", LORD_HOWE, days[LORD_HOWE])[1 : len(expected) + 1] == expected


def test_with_a_star_an_hour_that_does_not_exist_is_left_out_and_a_repeated_one_counts_twice() -> None:
    assert on_day("*/30 2 * * *", PARIS, SPRING[PARIS]) == []
    twice = ["02:00 +0200", "02:30 +0200", "02:00 +0100", "02:30 +0100"]
    assert on_day("*/30 2 * * *", PARIS, AUTUMN[PARIS]) == twice


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("zone", [PARIS, NEW_YORK, LORD_HOWE])
@pytest.mark.parametrize("days", [SPRING, AUTUMN])
def test_a_leader_that_begins_at_any_minute_of_a_switch_day_calculates_what_one_does_that_has_run_for_days(
    expression: str, zone: str, days: dict[str, str]
) -> None:
    timing = Cron(expression, zone)
    around = utc(f"{days[zone]}T00:00")
    known = list(times(timing, around - 5 * DAY, around + 4 * DAY))
    assert known == sorted(set(known))
    following = 0
    for moment in range(around - DAY // 2, around + 3 * DAY // 2, MINUTE):
        # a moment between two minutes, and a whole minute
        for now in (moment, moment + 1, moment + 30_500):
            while known[following] <= now:
                following += 1
            assert timing.after(now) == known[following]
            assert timing.latest(now) == known[following - 1]


@pytest.mark.parametrize(
    ("expression", "since", "expected"),
    [
        ("0 12 29 2 *", "2026-01-01", ["2028-02-29", "2032-02-29", "2036-02-29"]),
        ("0 12 29 2 *", "2096-03-01", ["2104-02-29", "2108-02-29"]),
        ("0 12 L * *", "2028-01-15", ["2028-01-31", "2028-02-29", "2028-03-31", "2028-04-30"]),
        ("0 12 LW * *", "2026-01-15", ["2026-01-30", "2026-02-27", "2026-03-31"]),
        ("0 12 * * MON#1", "2026-01-15", ["2026-02-02", "2026-03-02", "2026-04-06"]),
        ("0 12 * * 5L", "2026-01-15", ["2026-01-30", "2026-02-27", "2026-03-27"]),
        ("0 12 * * 1-5", "2026-01-15", ["2026-01-15", "2026-01-16", "2026-01-19"]),
        ("0 12 * * mon,Wed", "2026-01-15", ["2026-01-19", "2026-01-21"]),
        ("0 12 * * 0", "2026-01-15", ["2026-01-18", "2026-01-25"]),
        ("0 12 * * 7", "2026-01-15", ["2026-01-18", "2026-01-25"]),
        ("0 12 1 jan,JUL *", "2026-01-15", ["2026-07-01", "2027-01-01"]),
        # either of the two days, as cron does
        ("0 12 20 * MON", "2026-01-15", ["2026-01-19", "2026-01-20", "2026-01-26"]),
        # from one Monday 29 February to the next: 28 years, or 40 if there is no leap day in between
        ("0 12 29 2 */7", "2026-01-01", ["2032-02-29", "2060-02-29", "2088-02-29", "2128-02-29"]),
    ],
)
def test_days_of_the_month_and_of_the_week_are_those_of_cron(expression: str, since: str, expected: list[str]) -> None:
    moment, found = utc(f"{since}T00:00"), []
    for _ in expected:
        moment = Cron(expression).after(moment) or 0
        found.append(moment)
    assert found == [utc(f"{day}T12:00") for day in expected]


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (
            "* * * * * *",
            r"it must have five fields \(minute, hour, day of month, month, day of week\), such as '30 2 \* \* \*', and has 6\.",
        ),
        ("@daily", "it must have five fields"),
        ("", "it must have five fields"),
        ("* * * *", "it must have five fields"),
        ("60 * * * *", "the field for the minute is not valid"),
        ("* 24 * * *", "the field for the hour is not valid"),
        ("*/0 * * * *", "the field for the minute is not valid"),
        ("30-10 * * * *", "the field for the minute is not valid"),
        ("* * * FEB-DEZ *", "the field for the month is not valid"),
        ("* * * * MON#6", "the field for the day-of-week is not valid"),
        ("0 0 30 2 *", "the field for the day-of-month is not valid, or it never fires"),
        ("0 0 31 4,6,9,11 *", "never fires"),
        (f"{'9' * 5000} * * * *", "not valid"),
    ],
)
def test_an_expression_that_is_not_valid_is_an_error_that_names_the_field(expression: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Cron(expression)


@given(st.text("0123456789*/,-#LW MONJAN@", max_size=20))
def test_any_text_is_an_expression_or_a_config_error(expression: str) -> None:
    try:
        timing = Cron(expression)
    except ConfigError:
        return
    moment = timing.after(utc("2026-01-01T00:00"))
    assert moment is None or timing.latest(moment) == moment


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        ("Europe/Pariss", r"tz='Europe/Pariss': unknown time zone \(did you mean Europe/Paris\?\)\.$"),
        ("Europe", "unknown time zone"),
        ("/etc/hostname", "unknown time zone"),
        ("../zoneinfo/UTC", "unknown time zone"),
        ("", "unknown time zone"),
        ("\0", "unknown time zone"),
        ("localtime", "unknown time zone"),  # it differs from host to host
        ("posixrules", "unknown time zone"),
    ],
)
def test_a_time_zone_that_does_not_exist_is_an_error(zone: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Cron("* * * * *", zone)


def test_a_machine_without_time_zones_is_reported_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amqpworker.schedules.cron.available_timezones", set)
    with pytest.raises(ConfigError, match="this machine has no time zones: install the package tzdata"):
        Cron("* * * * *", "Nowhere/Here")


def test_without_cronsim_an_expression_is_an_error_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)
    with pytest.raises(ConfigError, match=r"needs cronsim: install it with pip install 'amqpworker\[schedules\]'"):
        Cron("59 23 31 12 5")


def test_it_is_written_as_people_write_it_and_equal_definitions_are_equal() -> None:
    assert str(Cron("30 2 * * *", PARIS)) == "30 2 * * * Europe/Paris"
    assert Cron("30 2 * * *", PARIS) == Cron("30 2 * * *", PARIS) != Cron("30 2 * * *", NEW_YORK)


def test_there_is_no_time_before_1970_or_after_the_calendar() -> None:
    timing = Cron("0 0 * * *")
    assert timing.latest(-1) is None
    assert timing.after(-(10**18)) == 0
    assert timing.after(10**18) is None
    assert (timing.latest(10**18) or 0) > utc("2900-01-01T00:00")
    assert timing.count(5, -5) == timing.count(10**18, 10**18 + 1) == 0


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high).map(str)
    steps = st.integers(2, 20).map(lambda step: f"*/{step}")
    return st.one_of(st.just("*"), steps, number, st.lists(number, min_size=1, max_size=4).map(",".join))


expressions = st.tuples(field(0, 59), field(0, 23), field(1, 28), field(1, 12), field(0, 7)).map(" ".join)
zones = st.sampled_from(sorted(available_timezones() - {"localtime"}))
moments = st.integers(utc("1971-01-01T00:00"), utc("2037-12-31T00:00"))


@given(expressions, zones, moments, st.floats(0, 1))
def test_no_time_is_between_one_and_the_next_in_any_zone(expression: str, zone: str, moment: int, part: float) -> None:
    timing = Cron(expression, zone)
    first = timing.after(moment)
    assert first is not None
    assert first > moment
    assert timing.latest(first) == first
    following = timing.after(first)
    assert following is not None
    assert following > first
    between = first + int((following - 1 - first) * part)
    assert timing.latest(between) == timing.latest(following - 1) == first
    assert timing.after(between) == following
    previous = timing.latest(first - 1)
    assert previous is None or (previous <= moment and timing.after(previous) == first)


@given(expressions, zones, moments, st.integers(0, 3 * DAY))
def test_times_are_counted_as_they_follow(expression: str, zone: str, moment: int, length: int) -> None:
    timing = Cron(expression, zone)
    if zone not in {"Pacific/Apia", "Pacific/Kwajalein", "Kwajalein"}:  # there both of two days can be one time
        assert timing.count(moment, moment + length) == len(list(times(timing, moment, moment + length)))


@given(expressions, st.sampled_from([PARIS, NEW_YORK, "Europe/London", "Asia/Tokyo"]), st.integers(0, 400))
def test_cronsim_that_began_days_before_yields_the_same_times(expression: str, zone: str, day: int) -> None:
    since = utc("2026-01-01T00:00") + day * DAY
    cronsim = CronSim(expression, (EPOCH + (since - 2 * DAY) * MILLISECOND).astimezone(ZoneInfo(zone)))
    theirs: list[int] = []
    while not theirs or theirs[-1] < since + 2 * DAY:
        theirs.append((next(cronsim) - EPOCH) // MILLISECOND)
        if len(theirs) > 200:
            break
    timing = Cron(expression, zone)
    assert list(times(timing, since - 2 * DAY, theirs[-1])) == theirs


def test_the_page_about_schedules_shows_what_fires_when_the_clock_changes() -> None:
    rows = table((ROOT / "docs/scheduling.md").read_text(), "| zone and day | the clock | cron | fires |")
    assert len(rows) > 5
    place = ""
    for row in rows:
        place = row[0] or place
        zone, day = place.split(", ")
        assert on_day(row[2].strip("`"), zone, day) == re.findall(r"\d\d:\d\d [+-]\d{4}", row[3]), row
