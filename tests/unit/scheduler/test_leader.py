"""When a leader puts a token, acknowledges, replies, and leaves its connection."""

from __future__ import annotations

from itertools import pairwise

import pytest

from amqpworker.scheduler.leader import LEAVE_AFTER, PATIENCE, RENEW_AFTER
from amqpworker.scheduler.scheduler_actions import LeaveConnection, PutToken, SendReply, SendTick
from amqpworker.scheduler.token import Token
from amqpworker.schedules.cron import Cron
from tests.unit.scheduler.election_scene import NOW, ElectionScene, each, of, seconds, text


def leading(*schedules: object) -> ElectionScene:
    """Return a scene in which the election leads, and all is confirmed."""
    scene = ElectionScene(*schedules)  # type: ignore[arg-type]
    scene.lead(Token(NOW))
    scene.run(1, 0.1)
    return scene


# ---- tokens ---------------------------------------------------------------------------------------------------------


def test_ticks_are_confirmed_then_the_token_is_then_the_old_one_is_acknowledged() -> None:
    scene = leading(each(10))
    scene.run(8)
    (tick,) = of(scene.turn(1), SendTick)
    own = scene.receive("token", message_id=scene.last(PutToken).message_id)
    assert not [put for _ in range(2) for put in of(scene.turn(0.1), PutToken) if put.token and not put.token.lagging]
    for put in of(scene.actions, PutToken)[-1:]:
        scene.end_token(put)
    scene.end_tick(tick)
    (put,) = of(scene.turn(PATIENCE + 0.1), PutToken)
    assert put.token is not None
    assert put.token.until >= tick.nominal
    assert not put.token.lagging
    assert own.tag not in scene.acknowledged() or put is not scene.last(PutToken)
    scene.end_token(put)
    assert own.tag in scene.acknowledged()


def test_a_token_names_what_is_not_confirmed() -> None:
    scene = leading(each(10))
    scene.run(8)
    scene.turn(1)
    scene.receive("list")
    scene.turn(PATIENCE)
    token = scene.last(PutToken).token
    assert token is not None
    assert dict(token.lagging) == {"s": NOW + 9_999}
    assert token.until >= NOW + 10_000


def test_the_token_is_renewed_each_minute() -> None:
    scene = leading(each(Cron("0 0 1 1 *")))
    puts = [scene.monotonic for _ in range(300) if of(scene.run(1, 1), PutToken)]
    assert len(puts) == 300 // RENEW_AFTER
    assert {after - before for before, after in pairwise(puts)} == {RENEW_AFTER}


def test_its_own_token_is_not_a_reason_for_another() -> None:
    scene = leading(each(1000))
    scene.receive("token", message_id=scene.last(PutToken).message_id)
    assert not of(scene.run(20), PutToken)


def test_a_token_that_is_refused_is_put_again_and_nothing_is_acknowledged_before() -> None:
    scene = leading(each(1000))
    command = scene.receive("pause", {"schedule": "s"})
    (put,) = of(scene.turn(1), PutToken)
    scene.end_token(put, "nacked")
    assert command.tag not in scene.acknowledged()
    assert not scene.replies(command)
    (again,) = of(scene.turn(1), PutToken)
    assert again.message_id != put.message_id
    scene.end_token(again)
    assert command.tag in scene.acknowledged()
    assert scene.replies(command)


def test_refused_tokens_take_no_memory() -> None:
    scene = leading(each(1000))
    scene.receive("list")
    for _ in range(100):
        for put in of(scene.turn(1), PutToken):
            scene.end_token(put, "nacked")
    assert len(scene.leader._own_ids) < 10


# ---- confirms that do not arrive ------------------------------------------------------------------------------------


def test_a_leader_leaves_when_nothing_is_confirmed_for_5_s_and_reports_it_once() -> None:
    scene = leading(each(10))
    scene.run(8)
    scene.turn(1)
    before = [action for _ in range(9) for action in of(scene.turn(LEAVE_AFTER / 10), LeaveConnection)]
    after = [action for _ in range(3) for action in of(scene.turn(LEAVE_AFTER / 10), LeaveConnection)]
    assert (len(before), len(after)) == (0, 1)


def test_a_leader_waits_for_a_broker_with_an_alarm() -> None:
    scene = leading(each(10))
    scene.run(8)
    scene.is_blocked = True
    assert not [action for _ in range(60) for action in of(scene.turn(1), LeaveConnection)]
    scene.is_blocked = False
    assert [action for _ in range(6) for action in of(scene.turn(1), LeaveConnection)]


def test_a_leader_stays_if_ticks_are_not_confirmed_but_tokens_are() -> None:
    scene = leading(each(10))
    scene.run(8)
    for _ in range(60):
        for action in scene.turn(0.5):
            assert not isinstance(action, LeaveConnection)
            if isinstance(action, PutToken):
                scene.end_token(action)


# ---- commands -------------------------------------------------------------------------------------------------------


def test_a_command_is_replied_to_once_the_token_that_holds_it_is_confirmed() -> None:
    scene = leading(each(10))
    command = scene.receive("pause", {"schedule": "s"})
    (put,) = of(scene.turn(0.1), PutToken)
    assert put.token is not None
    assert "s" in put.token.paused
    assert not scene.replies(command)
    scene.end_token(put)
    assert scene.replies(command) == [SendReply(command, {"schedule": "s", "paused": True})]
    assert command.tag in scene.acknowledged()


def test_a_command_for_a_schedule_that_does_not_exist_fails() -> None:
    scene = leading(each(10))
    command = scene.receive("resume", {"schedule": "other"})
    (reply,) = scene.replies(command)
    assert (reply.reason, reply.error) == ("unknown-schedule", "Unknown schedule 'other'.")
    assert scene.line("command_refused")["reason"] == "Unknown schedule 'other'."  # its sender may be gone
    scene.commit()
    assert command.tag in scene.acknowledged()


@pytest.mark.parametrize("kind", ["pause", "resume"])
def test_a_command_that_changes_nothing_succeeds(kind: str) -> None:
    scene = leading(each(10))
    for _ in range(2):
        command = scene.receive(kind, {"schedule": "s"})
        scene.commit()
        (reply,) = scene.replies(command)
        assert reply.value == {"schedule": "s", "paused": kind == "pause"}


def test_a_message_that_is_neither_is_refused_and_acknowledged() -> None:
    scene = leading(each(10))
    message = scene.receive("other", b"?")
    assert scene.line("command_refused")["effect"] == "it is acknowledged"
    assert scene.replies(message)[0].reason == "refused"
    scene.commit()
    assert message.tag in scene.acknowledged()


def test_a_standby_is_answered_with_a_token_that_is_confirmed() -> None:
    """Else it may start from one that the leader after this one never knew, and forget a command."""
    scene = leading(each(10))
    question = scene.receive("token", {"scheduler": "host:2", "schedules": "other"})
    assert not scene.replies(question)
    token = scene.commit()
    (reply,) = scene.replies(question)
    assert reply.value["until"] == text((token.until - NOW) / 1000)
    assert reply.value["leader"] == "host:1"
    assert reply.value["schedules"] == "mine"
    assert scene.line("schedules_differ")["other"] == "host:2"


# ---- list -----------------------------------------------------------------------------------------------------------


def test_a_list_has_a_row_for_each_schedule() -> None:
    scene = leading(each(10, "b"), each(20, "a"), each(10, "refused"))
    scene.receive("token", {"scheduler": "host:2", "schedules": "other"})
    scene.run(10, refused=["refused"])
    scene.receive("pause", {"schedule": "a"})
    (reply,) = scene.replies(scene.receive("list"))
    value = reply.value
    assert (value["scheduler"], value["leader"], value["since"]) == ("main", "host:1", text(0))
    assert value["differing"] == ["host:2"]
    rows = {row["name"]: row for row in value["schedules"]}
    assert list(rows) == ["a", "b", "refused"]
    assert rows["b"] == {
        "name": "b",
        "task": "task",
        "queue": "queue",
        "timing": "every 10 s",
        "last": text(10),
        "next": text(20),
        "paused": None,
        "lagging": None,
        "missed": 0,
        "last_missed": None,
        "skipped": 0,
    }
    assert (rows["a"]["next"], rows["a"]["paused"]) == (None, text(11))
    assert rows["refused"]["lagging"] == text(9.999)


def test_a_list_shows_the_last_time_of_a_paused_schedule_from_before_this_leader() -> None:
    scene = ElectionScene(each(10))
    scene.lead(Token(NOW + 65_000, paused={"s": NOW + 35_000}))
    (reply,) = scene.replies(scene.receive("list"))
    (row,) = reply.value["schedules"]
    assert (row["last"], row["paused"], row["next"]) == (text(30), text(35), None)


def test_a_list_shows_what_lags_until_the_clock_has_passed_it() -> None:
    scene = ElectionScene(each(10))
    scene.lead(Token(NOW + 65_000, {"s": NOW + 55_000}))
    (reply,) = scene.replies(scene.receive("list"))
    (row,) = reply.value["schedules"]
    assert (row["last"], row["lagging"], row["next"]) == (text(50), text(55), text(60))


# ---- the end --------------------------------------------------------------------------------------------------------


def test_a_leader_that_stops_waits_for_its_confirms_and_sends_nothing_more() -> None:
    scene = leading(each(10))
    scene.run(8)
    (tick,) = of(scene.turn(1), SendTick)
    scene.election.stop()
    assert not scene.election.has_settled
    scene.end_tick(tick)
    token = scene.commit()
    assert scene.election.has_settled
    assert token.until >= tick.nominal
    assert seconds(scene.run(30)) == []
    assert scene.election.seconds_left(scene.now, scene.monotonic) > 0
