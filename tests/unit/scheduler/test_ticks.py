"""Which ticks a leader sends, tries again, skips and misses."""

from __future__ import annotations

from itertools import pairwise

import pytest

from amqpworker.model.headers import FIRST_SENT
from amqpworker.scheduler.scheduler_actions import AskStore, PutToken, SendTick
from amqpworker.scheduler.ticks import MAX_PAUSE, STORE_PAUSE
from amqpworker.scheduler.token import Token
from amqpworker.schedules.cron import Cron
from amqpworker.schedules.definition import Misfire
from amqpworker.schedules.gap import MAX_MADE_UP
from amqpworker.schedules.interval import Interval
from amqpworker.schedules.window import Window
from tests.unit.scheduler.election_scene import NOW, RESULT_TTL, SECOND, ElectionScene, each, of, seconds, text


def leading(*schedules: object, token: Token | None = None) -> ElectionScene:
    """Return a scene in which the election leads, and has put its first token."""
    scene = ElectionScene(*schedules)  # type: ignore[arg-type]
    scene.lead(*([] if token is None else [token]))
    scene.run(0.5, 0.1)
    return scene


def pause(scene: ElectionScene, kind: str = "pause", name: str = "s") -> None:
    scene.receive(kind, {"schedule": name}, headers={FIRST_SENT: text((scene.now - NOW) / 1000)})


def test_what_was_due_more_than_a_year_ago_is_neither_sent_nor_counted() -> None:
    scene = leading(each(3600), token=Token(0))
    (entry,) = scene.leader.ticks.entries.values()
    assert 0 < entry.missed <= 366 * 24


# ---- confirms and refusals ------------------------------------------------------------------------------------------


def test_each_time_is_sent_once_and_not_before_it() -> None:
    scene = leading(each(10))
    sent = [(tick.nominal, scene.now) for _ in range(250) for tick in of(scene.run(0.1, 0.1), SendTick)]
    assert [nominal for nominal, _ in sent] == [NOW + 10_000, NOW + 20_000]
    assert all(0 <= now - nominal < 100 for nominal, now in sent)


def test_a_schedule_whose_ticks_are_refused_holds_up_no_other() -> None:
    scene = leading(each(10, "refused"), each(10, "other"))
    actions = scene.run(60, refused=["refused"])
    assert seconds(actions, "other") == [10, 20, 30, 40, 50, 60]
    token = scene.commit()
    assert dict(token.lagging) == {"refused": NOW + 10_000 - 1}
    assert token.until > NOW + 60_000


def test_a_refused_tick_is_tried_again_for_the_same_time_with_longer_pauses() -> None:
    scene = leading(each(1200))
    scene.run(1199)
    tries = [scene.monotonic for _ in range(1000) if of(scene.run(0.1, 0.1, refused=["s"]), SendTick)]
    pauses = [round(after - before, 1) for before, after in pairwise(tries)]
    assert pauses[:5] == [0.5, 1, 2, 4, 8]
    assert max(pauses) <= MAX_PAUSE
    assert {tick.nominal for tick in of(scene.actions, SendTick)} == {NOW + 1_200_000}


def test_the_next_leader_sends_what_lagged_under_the_same_time() -> None:
    scene = leading(each(10), token=Token(NOW + 25_000, {"s": NOW + 5_000}))
    scene.now = NOW + 26_000
    assert seconds(scene.run(1)) == [10, 20]


def test_ticks_that_are_confirmed_while_one_before_them_is_not_are_not_sent_again() -> None:
    scene = leading(each(10, misfire="all"))
    scene.now += 30 * SECOND
    first, second, third = of(scene.turn(), SendTick)
    scene.end_tick(first)
    scene.end_tick(second, "refused")
    scene.end_tick(third)
    assert seconds(scene.turn(1)) == [(second.nominal - NOW) / 1000]


def test_a_refused_tick_lags_although_the_clock_is_set_back_before_it() -> None:
    scene = leading(each(10))
    scene.run(10, refused=["s"])
    scene.now -= 3_600_000
    assert seconds(scene.run(40)) == []
    assert dict(scene.commit().lagging) == {"s": NOW + 10_000 - 1}


def test_what_lags_in_a_token_ahead_of_the_clock_still_lags_in_the_next() -> None:
    scene = leading(each(10), token=Token(NOW + 65_000, {"s": NOW + 55_000}))
    assert dict(scene.commit().lagging) == {"s": NOW + 55_000}
    assert seconds(scene.run(65)) == [60]
    assert dict(scene.commit().lagging) == {}


def test_what_is_more_than_a_leader_sends_at_once_lags() -> None:
    scene = leading(each(1, grace=10_000))
    scene.now += (MAX_MADE_UP + 50) * SECOND
    ticks = of(scene.turn(), SendTick)
    assert len(ticks) == MAX_MADE_UP
    scene.confirm(ticks)
    (put,) = of(scene.turn(0.01), PutToken)
    assert put.token is not None
    assert dict(put.token.lagging) == {"s": ticks[-1].nominal}


def test_the_missed_ticks_of_a_schedule_that_is_refused_are_counted_once() -> None:
    scene = leading(each(10))
    scene.run(300, refused=["s"])
    entry = scene.leader.ticks.entries["s"]
    assert 20 <= entry.missed <= 30


@pytest.mark.parametrize("misfire", ["once", "skip", "all"])
def test_a_tick_that_is_refused_for_longer_than_the_grace_is_still_sent(misfire: Misfire) -> None:
    scene = leading(each(3600, misfire=misfire))
    scene.run(3900, refused=["s"])
    assert seconds(scene.run(60)) == [3600]
    assert scene.leader.ticks.entries["s"].missed == 0


# ---- gaps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("misfire", "expected"),
    [("once", [3590, 3600]), ("skip", [3600]), ("all", [*range(10, 3601, 10)])],
)
def test_after_a_step_forward_the_misfire_option_decides(misfire: Misfire, expected: list[float]) -> None:
    scene = leading(each(10, misfire=misfire))
    scene.now = NOW + 3_591_000
    assert seconds(scene.run(10)) == expected
    assert "clock_stepped" in scene.events()
    missed = [line for line in scene.events() if line == "ticks_missed"]
    assert len(missed) == (misfire != "all")


def test_after_a_step_back_nothing_is_sent_until_the_clock_has_passed_the_token() -> None:
    scene = leading(each(10))
    scene.run(25)
    scene.now -= 60_000
    assert seconds(scene.run(59)) == []
    assert seconds(scene.run(10)) == [30]
    assert scene.events().count("clock_behind_token") == 1


def test_a_schedule_without_a_further_time_ends() -> None:
    scene = leading(each(Window(Interval(10_000), None, NOW + 20_000)))
    assert seconds(scene.run(100)) == [10, 20]
    assert dict(scene.commit().lagging) == {}


def test_a_schedule_that_is_gone_from_the_code_is_gone_from_the_token() -> None:
    times = {"s": NOW - 1, "gone": NOW - 1}
    scene = leading(each(10, overlap="skip"), token=Token(NOW, times, times, times))
    token = scene.commit()
    assert not {"gone"} & {*token.lagging, *token.paused, *token.running}


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"])
def test_no_time_in_a_token_stops_a_leader(time: str) -> None:
    schedules = each(10), each(Cron("0 * * * *", "Europe/Paris"), "cron", "all"), each(7, "skip", overlap="skip")
    scene = ElectionScene(*schedules)
    names = ",".join(f'"{schedule.name}": "{time}"' for schedule in schedules)
    fields = f'"lagging": {{{names}}}, "paused": {{"s": "{time}"}}, "running": {{{names}}}'
    scene.lead(f'{{"until": "{text(0)}", {fields}}}'.encode(), f'{{"until": "{time}"}}'.encode())
    scene.run(20)
    pause(scene, "resume")
    assert seconds(scene.run(20)) == [30, 40]
    scene.run(RESULT_TTL / 1000)
    assert seconds(scene.actions, "skip")


# ---- pauses ---------------------------------------------------------------------------------------------------------


def test_a_paused_schedule_sends_nothing_and_does_not_make_it_up() -> None:
    scene = leading(each(10), each(10, "other"))
    scene.run(15)
    pause(scene)
    actions = scene.run(30)
    assert seconds(actions) == []
    assert seconds(actions, "other") == [20, 30, 40]
    pause(scene, "resume")
    assert seconds(scene.run(20)) == [50, 60]


def test_a_pause_lasts_when_another_scheduler_leads_and_is_not_made_up_then() -> None:
    scene = leading(each(10), token=Token(NOW - 60_000, paused={"s": NOW - 70_000}))
    assert seconds(scene.run(20)) == []
    assert dict(scene.commit().paused) == {"s": NOW - 70_000}
    pause(scene, "resume")
    assert seconds(scene.run(20)) == [30, 40]


def test_ticks_due_before_a_pause_that_waited_for_a_leader_are_sent() -> None:
    scene = ElectionScene(each(10))
    scene.election.on_subscribed()
    scene.receive("token", Token(NOW - 45_000))
    scene.receive("pause", {"schedule": "s"}, headers={FIRST_SENT: text(-15)})
    put = scene.last(PutToken)
    scene.receive("token", b"{}", message_id=put.message_id)
    scene.confirm(scene.actions)
    assert seconds([*scene.actions, *scene.run(60)]) == [-40, -30, -20]


def test_the_next_leader_sends_what_was_in_flight_when_a_schedule_was_paused() -> None:
    scene = leading(each(10), token=Token(NOW - 5_000, {"s": NOW - 21_000}, {"s": NOW - 5_000}))
    assert seconds([*scene.actions, *scene.run(60)]) == [-20, -10]
    assert dict(scene.commit().lagging) == {}


def test_what_is_refused_when_a_schedule_is_paused_is_not_tried_again() -> None:
    scene = leading(each(10))
    scene.run(12, refused=["s"])
    pause(scene)
    assert seconds(scene.run(60)) == []
    pause(scene, "resume")
    assert seconds(scene.run(10)) == [80]


def test_a_tick_refused_after_a_short_pause_makes_up_nothing_of_it() -> None:
    scene = leading(each(1, misfire="all"))
    tick = scene.last(SendTick) if seconds(scene.turn(0.6)) else None
    assert tick is not None
    pause(scene)
    scene.turn(5)
    pause(scene, "resume")
    scene.end_tick(tick, "no confirm")
    assert seconds(scene.run(3))[0] == 7


def test_a_resumed_schedule_starts_with_the_command_however_late_a_leader_gets_it() -> None:
    scene = ElectionScene(each(1))
    scene.election.on_subscribed()
    scene.receive("token", Token(NOW - 60_000, paused={"s": NOW - 70_000}))
    scene.receive("resume", {"schedule": "s"}, headers={FIRST_SENT: text(-2.5)})
    scene.receive("token", b"{}", message_id=scene.last(PutToken).message_id)
    assert seconds(scene.run(2)) == [-2, -1, 0, 1, 2]


# ---- overlap --------------------------------------------------------------------------------------------------------


def overlapping() -> ElectionScene:
    """Return a scene in which the tick of second 10 was sent, and the store is asked about it at second 20."""
    scene = leading(each(10, overlap="skip"))
    scene.run(19)
    assert dict(scene.commit().running) == {"s": NOW + 10_000}
    scene.run(1)
    assert scene.last(AskStore).ticks == (("s", NOW + 10_000),)
    return scene


def test_a_tick_is_skipped_while_the_task_of_the_last_one_runs() -> None:
    scene = overlapping()
    scene.store_answers(False)
    assert seconds(scene.run(5)) == []
    assert scene.leader.ticks.entries["s"].skipped == 1
    assert dict(scene.commit().lagging) == {}


def test_a_tick_is_sent_once_the_task_of_the_last_one_has_ended() -> None:
    scene = overlapping()
    assert seconds(scene.store_answers(True)) == [20]


def test_a_tick_waits_for_a_store_that_cannot_answer() -> None:
    scene = overlapping()
    scene.store_answers(None)
    asked = len(of(scene.actions, AskStore))
    assert seconds(scene.run(STORE_PAUSE + 1)) == []
    assert dict(scene.commit().lagging) == {"s": NOW + 20_000 - 1}
    assert len(of(scene.actions, AskStore)) > asked
    assert seconds(scene.store_answers(True)) == [20]


def test_a_store_that_never_answers_holds_up_a_schedule_for_the_result_ttl() -> None:
    scene = overlapping()
    asked = len(of(scene.actions, AskStore))
    assert seconds(scene.run(RESULT_TTL / 1000 - 15)) == []
    assert len(of(scene.actions, AskStore)) == asked
    assert seconds(scene.run(10)) == [110]


def test_a_tick_that_waits_for_the_store_is_not_sent_for_a_time_after_a_pause() -> None:
    scene = overlapping()
    pause(scene)
    scene.run(70)
    scene.store_answers(None)
    scene.run(STORE_PAUSE + 10)
    assert seconds(scene.store_answers(True)) == [20]
    assert seconds(scene.run(30)) == []


def test_the_next_leader_asks_about_the_task_that_runs() -> None:
    scene = ElectionScene(each(10, overlap="skip"))
    scene.lead(Token(NOW, running={"s": NOW}))
    scene.run(10)
    assert scene.last(AskStore).ticks == (("s", NOW),)
    assert seconds(scene.actions) == []
