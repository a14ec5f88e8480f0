"""Which options of a message are taken, and what is reported of those that are not."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker import App
from amqpworker.errors import InvalidArguments
from amqpworker.model.message import Message
from amqpworker.policies.send_options import Options, check_options
from amqpworker.routing.delay import MAX_DELAY
from amqpworker.task import CallView, RemoteTask, SendView, TaskView


def task(**settings: Any) -> RemoteTask[[str], str]:
    @App("amqp://127.0.0.1:1/").remote(name="test.echo", queue="work")
    def echo(text: str) -> str: ...

    return echo


def test_no_options_are_the_defaults() -> None:
    assert check_options() == Options()


@pytest.mark.parametrize("name", ["delay", "expires", "timeout"])
def test_durations_are_seconds_or_a_timedelta(name: str) -> None:
    assert getattr(check_options(**{name: 5}), name) == 5.0
    assert getattr(check_options(**{name: timedelta(minutes=2)}), name) == 120.0


@pytest.mark.parametrize("name", ["delay", "expires", "timeout"])
@pytest.mark.parametrize(
    "value", [-1, -1e-9, float("nan"), float("inf"), MAX_DELAY + 1, True, "5", b"5", [5], timedelta(seconds=-1)]
)
def test_what_is_not_a_duration_is_refused_with_the_option_s_name(name: str, value: object) -> None:
    with pytest.raises(InvalidArguments, match=name):
        check_options(**{name: value})


def test_a_timeout_of_nothing_is_refused_and_a_delay_of_nothing_is_none() -> None:
    with pytest.raises(InvalidArguments, match="timeout"):
        check_options(timeout=0)
    assert check_options(delay=0).delay == 0.0


def test_time_limits_of_a_message_become_headers_beside_its_own() -> None:
    checked = check_options(time_limit=timedelta(minutes=1), hard_limit=90.5, headers={"tenant": "acme"})
    assert checked.headers == {"tenant": "acme", "aw-time-limit": 60, "aw-hard-limit": "90.5"}
    assert check_options(hard_limit=5).headers == {"aw-hard-limit": 5}
    assert isinstance(task().options(time_limit=5), TaskView)
    assert task().options(time_limit=5, delay=1).message("x").headers == {"aw-time-limit": 5}


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"time_limit": 0}, "options(time_limit=…): it must be more than zero seconds."),
        ({"hard_limit": 0}, "options(hard_limit=…): it must be more than zero seconds."),
        ({"hard_limit": -1}, "hard_limit=-1: it must be zero or more seconds."),
        ({"time_limit": "5"}, "time_limit='5': a duration is a number of seconds or a timedelta."),
        (
            {"time_limit": 6, "hard_limit": 5},
            "options(time_limit=…, hard_limit=…): the hard limit of 5 s must not be shorter than the time limit of 6 s.",
        ),
    ],
)
def test_limits_that_are_not_valid_are_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArguments, match=re.escape(text)):
        check_options(**given)


def test_times_must_have_a_zone() -> None:
    naive = datetime(2030, 1, 1)  # noqa: DTZ001 - naive is the point
    for name in ("at", "expires"):
        with pytest.raises(InvalidArguments, match="must be timezone-aware"):
            check_options(**{name: naive})
    for zone in (UTC, timezone(timedelta(hours=5, minutes=30))):
        assert check_options(at=naive.replace(tzinfo=zone)).at == naive.replace(tzinfo=zone)


class Failing(tzinfo):
    def utcoffset(self, _at: datetime | None) -> timedelta:
        raise RuntimeError("no such zone")

    def __repr__(self) -> str:
        raise RuntimeError("no text either")


@pytest.mark.parametrize("name", ["at", "expires"])
def test_a_time_zone_that_fails_is_refused_with_the_option_s_name(name: str) -> None:
    with pytest.raises(InvalidArguments, match=f"^{name}=…: .*RuntimeError"):
        check_options(**{name: datetime(2030, 1, 1, tzinfo=Failing())})


def test_a_time_beyond_the_ladder_is_refused_and_a_past_one_is_taken() -> None:
    with pytest.raises(InvalidArguments, match="at"):
        check_options(at=datetime(9999, 1, 1, tzinfo=UTC))
    past = datetime(1970, 1, 1, tzinfo=UTC)
    assert check_options(at=past).at == past
    assert check_options(expires=datetime(9999, 12, 31, tzinfo=UTC)).expires is not None


@pytest.mark.parametrize("name", ["id", "queue"])
@pytest.mark.parametrize("value", ["", "x" * 256, "ü" * 128, "\ud800", 5, b"id", ["id"]])
def test_a_name_that_amqp_cannot_carry_is_refused(name: str, value: object) -> None:
    with pytest.raises(InvalidArguments, match=f"{name}=…"):
        check_options(**{name: value})


@pytest.mark.parametrize("name", ["id", "queue"])
@pytest.mark.parametrize("value", ["x", "x" * 255, "ü" * 127, "with space", "日本"])
def test_any_text_of_up_to_255_bytes_is_a_name(name: str, value: str) -> None:
    assert getattr(check_options(**{name: value}), name) == value


@pytest.mark.parametrize(
    "name",
    ["x-death", "X-Death", "x-", "aw-attempt", "AW-ATTEMPT", "aw-", "aw-mine", "CC", "cc", "BCC", "Bcc"],
)
def test_headers_that_are_ours_or_the_broker_s_are_refused(name: object) -> None:
    with pytest.raises(InvalidArguments, match="reserved"):
        check_options(headers={"fine": 1, name: 1})


@given(st.text(min_size=1).filter(lambda name: not name.lower().startswith(("x-", "aw-"))))
def test_any_other_name_is_the_user_s(name: str) -> None:
    if name.lower() not in {"cc", "bcc"}:
        assert check_options(headers={name: 1}).headers == {name: 1}


@pytest.mark.parametrize("value", [[("a", 1)], "a=1", 5])
def test_headers_are_a_mapping(value: object) -> None:
    with pytest.raises(InvalidArguments, match="mapping"):
        check_options(headers=value)


def test_headers_are_copied_so_that_a_later_change_changes_no_message() -> None:
    mine = {"tenant": "acme"}
    options = check_options(headers=mine)
    mine["tenant"] = "other"
    assert options.headers == {"tenant": "acme"}
    frozen: Mapping[str, int] = MappingProxyType({"a": 1})
    assert check_options(headers=frozen).headers == {"a": 1}


def test_what_does_not_go_together_is_refused() -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    with pytest.raises(InvalidArguments, match="not both"):
        check_options(delay=1, at=moment)
    for name, value in (("delay", 0), ("at", moment), ("expires", 5), ("resend", False)):
        with pytest.raises(InvalidArguments, match=f"{name!r}"):
            check_options(timeout=5, **{name: value})


def test_whether_a_message_is_published_again_is_yes_or_no() -> None:
    assert check_options(resend=False).resend is False
    assert task().options(resend=False).message("x").resend is False
    with pytest.raises(InvalidArguments, match="True or False"):
        check_options(resend=1)


def test_what_would_be_late_before_it_is_due_is_refused_at_once() -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    soon = datetime.now(UTC) + timedelta(seconds=5)
    never: list[dict[str, Any]] = [
        {"delay": 60, "expires": 30},
        {"delay": 60, "expires": 60},
        {"delay": timedelta(minutes=1), "expires": soon},
        {"at": moment, "expires": moment},
        {"at": moment, "expires": soon},
    ]
    for options in never:
        with pytest.raises(InvalidArguments, match="never runs"):
            check_options(**options)
    for options in ({"delay": 30, "expires": 60}, {"at": moment, "expires": 30}, {"delay": 0, "expires": 0}):
        check_options(**options)


def test_options_leave_the_verbs_that_they_suit() -> None:
    plain, timed, timeout = task().options(id="1"), task().options(delay=1), task().options(timeout=1)
    assert type(plain) is TaskView
    assert type(timed) is SendView
    assert type(timeout) is CallView
    with pytest.raises(AttributeError, match=r"^call\(\) does not accept delay, at, expires or resend$"):
        timed.call("x")  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"^send\(\) does not accept timeout$"):
        timeout.send("x")  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"^message\(\) does not accept timeout$"):
        timeout.message("x")  # type: ignore[attr-defined]
    assert not hasattr(timed, "call")


@pytest.mark.parametrize("name", ["later", "enqueue", "send_later"])
def test_what_a_task_does_not_have_is_reported_with_what_it_has(name: str) -> None:
    echo = task()
    for asked, told in (
        (
            echo,
            f"Task 'test.echo' has no attribute {name!r}: use .send(…), .asend(…), .call(…), .acall(…), .schedule(…) or .options(…).",
        ),
        (
            echo.options(id="1"),
            f"Task 'test.echo' with these options has no attribute {name!r}: use .send(…), .asend(…), .call(…), .acall(…), .mess",
        ),
        (
            echo.options(delay=1),
            f"Task 'test.echo' with these options has no attribute {name!r}: use .send(…), .asend(…), .message(…) or .sch",
        ),
        (
            echo.options(timeout=1),
            f"Task 'test.echo' with these options has no attribute {name!r}: use .call(…) or .acall(…).",
        ),
    ):
        assert not hasattr(asked, name)
        with pytest.raises(AttributeError, match=f"^{re.escape(told)}") as caught:
            getattr(asked, name)
        assert caught.value.name == name


def test_a_task_can_be_copied_and_looked_into() -> None:
    echo = task()
    for asked in (echo, echo.options(id="1"), echo.options(delay=1), echo.options(timeout=1)):
        assert vars(copy.copy(asked)) == vars(asked)
        assert not hasattr(type(asked).__new__(type(asked)), "_task")


def test_a_task_looks_like_its_function() -> None:
    def double(number: int) -> int:
        return number * 2

    made = App("amqp://127.0.0.1:1/").task(name="test.double")(double)
    assert inspect.unwrap(made) is double
    assert inspect.signature(made) == inspect.signature(double)
    assert copy.copy(made)(3) == 6


def test_options_do_not_stay_on_the_task() -> None:
    echo = task()
    assert echo.options(queue="other", id="1", delay=5, headers={"a": 1}).message("x").queue == "other"
    message = echo.message("x")
    assert (message.queue, message.delay, message.headers) == ("work", None, {})
    assert message.id != "1"


def test_a_message_is_as_its_options_require() -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    message = task().options(at=moment, expires=5, id="1", queue="q", headers={"a": 1}).message("hi")
    assert message == Message("test.echo", "q", b'{"text":"hi"}', "1", {"a": 1}, None, moment, 5.0)
    assert copy.copy(message) == message


def test_ids_are_new_for_each_message_and_sort_by_time() -> None:
    echo = task()
    ids = [echo.message("x").id for _ in range(1000)]
    assert len(set(ids)) == 1000
    assert ids[0][:8] <= ids[-1][:8]


def test_a_body_beyond_the_limit_is_refused_with_the_setting_s_name() -> None:
    with pytest.raises(InvalidArguments, match="AMQPWORKER_MAX_BODY"):
        task().message("x" * 1024 * 1024)
    assert len(task().message("x" * (1024 * 1024 - 20)).body) <= 1024 * 1024
