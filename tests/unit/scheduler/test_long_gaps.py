"""A leader after a gap in which more ticks were due than can be sent at once."""

from __future__ import annotations

from amqpworker.scheduler.scheduler_actions import PutToken, SendTick
from amqpworker.scheduler.ticks import MOST_IN_FLIGHT
from amqpworker.scheduler.token import Token
from amqpworker.schedules.gap import MAX_MADE_UP
from tests.unit.scheduler.election_scene import HOUR, NOW, ElectionScene, each, of

DAY = 24 * HOUR
NAMES = [f"s{number:02}" for number in range(30)]


def leading_after_a_day() -> ElectionScene:
    scene = ElectionScene(*(each(60, name, misfire="all") for name in NAMES))
    scene.lead(Token(NOW - DAY))
    return scene


def test_a_leader_sends_the_ticks_of_a_long_gap_in_parts() -> None:
    scene = leading_after_a_day()
    first = scene.turn()
    assert MOST_IN_FLIGHT <= len(of(first, SendTick)) < MOST_IN_FLIGHT + MAX_MADE_UP
    assert not of(scene.turn(0.5), SendTick)
    assert scene.election.seconds_left(scene.now, scene.monotonic) > 0.1
    scene.confirm(first)
    scene.run(2, 0.1)
    sent = [(tick.schedule, tick.nominal) for tick in of(scene.actions, SendTick)]
    assert len(sent) == len(set(sent)) == len(NAMES) * MAX_MADE_UP


def test_the_next_leader_sends_the_parts_of_a_long_gap_that_are_left() -> None:
    scene = leading_after_a_day()
    first = scene.turn()
    scene.confirm(first)
    confirmed = {(tick.schedule, tick.nominal) for tick in of(first, SendTick)}
    token = scene.last(PutToken).token
    assert token is not None
    other = ElectionScene(*(each(60, name, misfire="all") for name in NAMES))
    other.lead(token)
    other.run(2, 0.1)
    sent = {(tick.schedule, tick.nominal) for tick in of(other.actions, SendTick)}
    assert len(sent | confirmed) == len(NAMES) * MAX_MADE_UP
