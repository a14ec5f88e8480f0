"""Which scheduler leads, and from which token."""

from __future__ import annotations

import pytest
from pydantic_core import to_json

from amqpworker.scheduler import election
from amqpworker.scheduler.election import ASK_EVERY
from amqpworker.scheduler.leader import LEAVE_AFTER
from amqpworker.scheduler.scheduler_actions import AskLeader, LeaveConnection, PutToken, ReportLeader
from amqpworker.scheduler.token import Token, token_fields
from tests.unit.scheduler.election_scene import HOUR, MINUTE, NOW, ElectionScene, each, of, seconds, text


def answer(token: Token, schedules: str = "mine") -> bytes:
    return to_json({"status": "done", "value": {**token_fields(token), "schedules": schedules}})


def test_a_scheduler_leads_once_it_has_received_all_that_waits() -> None:
    scene = ElectionScene(each(10))
    scene.election.on_subscribed()
    for until in (NOW - 3000, NOW - 1000, NOW - 2000):
        scene.receive("token", Token(until))
    assert scene.election.leader is None
    (put,) = of(scene.actions, PutToken)
    scene.receive("token", b"{}", message_id=put.message_id)
    assert scene.leader.ticks.until == NOW - 1000
    assert scene.last(ReportLeader) == ReportLeader(True, "host:1", NOW)
    assert scene.line("scheduler_leading")["until"] == text(-1)


def test_without_a_token_a_scheduler_starts_from_now_with_a_warning() -> None:
    scene = ElectionScene(each(10))
    scene.lead(b"{}")
    assert scene.line("token_missing")["since"] == text(0)
    assert seconds(scene.run(10)) == [10]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"until": "?"}', b'{"until": "9999-01-01T00:00:00Z"}'])
def test_tokens_that_cannot_be_used_are_refused_with_a_warning_and_acknowledged(body: bytes) -> None:
    scene = ElectionScene(each(10))
    scene.lead(body, Token(NOW - 5000))
    assert scene.leader.ticks.until == NOW - 5000
    assert scene.line("token_refused")["effect"] == "it is acknowledged"
    scene.commit()
    assert {1, 2, 3} <= set(scene.acknowledged())


def test_a_token_up_to_two_hours_ahead_counts_with_a_warning_each_minute() -> None:
    scene = ElectionScene(each(60))
    scene.lead(Token(NOW + 2 * HOUR))
    assert seconds(scene.run(7200, 10)) == []
    assert scene.events().count("clock_behind_token") == 120
    assert seconds(scene.run(60, 10)) == [7260]


def test_a_token_further_ahead_is_refused_with_a_warning() -> None:
    scene = ElectionScene(each(60))
    scene.lead(Token(NOW + 2 * HOUR + 1))
    assert "token_refused" in scene.events()
    assert "token_missing" in scene.events()
    assert seconds(scene.run(60, 10)) == [60]


def test_a_forged_message_without_an_id_does_not_make_a_scheduler_lead_too_early() -> None:
    scene = ElectionScene(each(10))
    scene.election.on_subscribed()
    scene.receive("token", b"{}", message_id="")
    assert scene.election.leader is None


def test_of_tokens_with_the_same_time_the_last_one_counts_wherever_a_standby_has_an_older_one() -> None:
    """While a clock is behind the token, each token has the same time; a command must not be forgotten."""
    scene = ElectionScene(each(10))
    scene.election.on_subscribed()
    scene.election.on_leader_answered(answer(Token(NOW + MINUTE, number=7)), scene.now)
    scene.receive("token", Token(NOW + MINUTE, paused={"s": NOW}, number=8))
    put = scene.last(PutToken)
    scene.receive("token", put.token or b"{}", message_id=put.message_id)
    assert scene.leader.ticks.paused == {"s": NOW}
    assert scene.commit().number == 9


def test_a_token_of_another_leader_that_arrives_late_loses_neither_ticks_nor_commands() -> None:
    scene = ElectionScene(each(10, "lags"), each(10, "paused"), each(10, "runs", overlap="skip"))
    scene.lead(Token(NOW))
    scene.receive("pause", {"schedule": "paused"})
    scene.receive("token", Token(NOW + 25_000, {"lags": NOW + 5000}, {}, {"runs": NOW + 20_000}))
    assert scene.line("token_adopted")["until"] == text(25)
    token = scene.commit()
    assert (dict(token.lagging), set(token.paused)) == ({"lags": NOW + 5000}, {"paused"})
    assert dict(token.running) == {"runs": NOW + 20_000}
    actions = scene.run(30)
    assert seconds(actions, "lags") == [10, 20, 30]
    assert seconds(actions, "paused") == []


def test_after_all_tokens_were_lost_one_that_a_standby_knows_is_made_use_of() -> None:
    scene = ElectionScene(each(10), each(10, "paused"))
    scene.lead(b"{}")
    scene.run(5)
    own = scene.commit()
    scene.receive("token", {**token_fields(own), "scheduler": "host:3"})
    assert "token_adopted" not in scene.events()
    scene.receive("token", Token(NOW - 25_000, paused={"paused": NOW - 30_000}, leader="host:2"))
    scene.receive("token", Token(NOW - 35_000, leader="host:2"))
    assert scene.line("token_adopted")["until"] == text(-25)
    actions = scene.run(5)
    assert seconds(actions) == [-20, -10, 0, 10]
    assert seconds(actions, "paused") == []


def test_an_old_token_by_hand_makes_up_nothing_once_all_others_have_asked() -> None:
    scene = ElectionScene(each(10))
    scene.lead(b"{}")
    scene.run(35)
    scene.receive("token", Token(NOW - 25_000))
    assert seconds(scene.run(10)) == [40]


def test_a_standby_asks_who_leads_and_starts_from_the_answer() -> None:
    scene = ElectionScene(each(10))
    scene.election.on_subscribed()
    assert of(scene.turn(), AskLeader) == [AskLeader(None)]
    assert scene.turn(ASK_EVERY - 1) == []
    token = Token(NOW + 1000, leader="host:2", since=NOW)
    scene.actions += scene.election.on_leader_answered(answer(token), scene.now)
    assert scene.last(ReportLeader) == ReportLeader(False, "host:2", NOW)
    assert of(scene.turn(1), AskLeader) == [AskLeader(token)]
    scene.lead(b"{}")
    assert scene.leader.ticks.until == NOW + 1000


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"status": "done", "value": 1}', b'{"status": "done"}'])
def test_an_answer_that_cannot_be_used_changes_nothing(body: bytes) -> None:
    scene = ElectionScene(each(10))
    scene.election.on_subscribed()
    assert scene.election.on_leader_answered(body, NOW) == []
    assert of(scene.turn(), AskLeader) == [AskLeader(None)]


def test_schedulers_with_different_schedules_report_it_once() -> None:
    scene = ElectionScene(each(10))
    scene.election.on_subscribed()
    for _ in range(3):
        scene.actions += scene.election.on_leader_answered(answer(Token(NOW, leader="host:2"), "other"), NOW)
    assert scene.line("schedules_differ")["other"] == "host:2"


def test_a_scheduler_that_lost_the_token_starts_from_its_last_one() -> None:
    scene = ElectionScene(each(10))
    scene.lead(Token(NOW))
    scene.run(15)
    last = scene.commit()
    scene.actions += scene.election.on_lost()
    assert scene.last(ReportLeader) == ReportLeader(False, "", 0)
    assert "scheduler_lost_leadership" in scene.events()
    scene.lead(b"{}")
    assert scene.leader.ticks.until == last.until
    assert scene.events().count("token_missing") == 0


def test_a_token_that_is_not_confirmed_before_it_leads_ends_the_connection() -> None:
    scene = ElectionScene(each(10))
    scene.election.on_subscribed()
    scene.receive("token", b"{}")
    assert not of(scene.turn(LEAVE_AFTER - 1), LeaveConnection)
    assert of(scene.turn(2), LeaveConnection)


def test_a_broker_with_an_alarm_is_waited_for_before_it_leads() -> None:
    scene = ElectionScene(each(10))
    scene.election.on_subscribed()
    scene.receive("token", b"{}")
    scene.is_blocked = True
    assert not [action for _ in range(30) for action in of(scene.turn(1), LeaveConnection)]


def test_a_token_that_is_refused_before_it_leads_is_put_again_soon() -> None:
    scene = ElectionScene(each(10))
    scene.election.on_subscribed()
    scene.turn()
    scene.receive("token", b"{}")
    scene.end_token(scene.last(PutToken), "nacked")
    assert of(scene.turn(1), AskLeader)
    scene.receive("token", b"{}")
    assert len(of(scene.actions, PutToken)) == 2


def test_a_flood_of_messages_does_not_keep_a_scheduler_from_leading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(election, "MOST_GATHERED", 100)
    scene = ElectionScene(each(10))
    scene.election.on_subscribed()
    for _ in range(100):
        scene.receive("list")
    assert scene.election.leader is not None
