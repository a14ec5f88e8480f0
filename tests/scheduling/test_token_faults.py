"""What may be done by hand to the queue of a scheduler: a warning for each, and no tick is missed while a leader runs."""

from __future__ import annotations

import json
from pathlib import Path

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker

from amqpworker.model.headers import time_text
from tests.schedulers import (
    PATIENCE,
    SECOND,
    TOKENS,
    Schedulers,
    Ticks,
    judge,
    now,
    publish_token,
    schedulers,
    starts_from,
    watched,
)
from tests.support import Broker, milliseconds, raw_channel, wait_until

pytestmark = pytest.mark.timeout(180)

HOUR = 3600 * SECOND
# More than a scheduler receives before it leads.
MANY = 6000
MALFORMED = (
    "",
    "[]",
    "no JSON",
    '{"until": "tomorrow"}',
    '{"until": 1e400}',
    '{"until": "2026-11-30T00:00:00.000Z", "lagging": []}',
    '{"until": "2026-11-30T00:00:00.000Z", "paused": {"s000": true}}',
    "[" * 100_000,
)
STRANGE = (
    '{"until": "0001-01-01T00:00:00.000Z", "leader": 5}',
    '{"until": -99999999999999999999}',
    '{"until": 1, "lagging": {"s000": -99999999999999999999, "nobody": 0}, "running": {"s000": 99999999999999999999}}',
    '{"scheduler": "\\ud800", "schedules": "\\udfff"}',
    '{"until": "2026-11-30T00:00:00.000Z", "leader": "\\ud800", "since": 99999999999999999999999}',
)
BESIDE = """
tick.schedule("beside", every=1)(0)
"""


def publish_many(broker: Broker, *commands: tuple[str, str]) -> None:
    """Publish commands (type and body) into the token queue."""
    with raw_channel(broker.url) as channel:
        for kind, body in commands:
            properties = pika.BasicProperties(type=kind, delivery_mode=2, message_id="by-hand")
            channel.basic_publish("amqpworker.schedule", "main", body.encode(), properties)
        channel.queue_declare(TOKENS, passive=True)  # answered after all of them


def wait_for_clock(until: int) -> None:
    """Wait until this time."""
    wait_until(lambda: now() >= until, PATIENCE, "a time")


def only_a_token_is_left(broker: Broker) -> None:
    """Wait until what is in the queue of the stopped schedulers is one token."""
    wait_until(lambda: broker.count(TOKENS) == 1, PATIENCE, "one token")


# ---- the queue -----------------------------------------------------------------------------------------------------


def test_a_look_into_the_queue_by_basic_get_is_refused_and_its_leader_continues(tmp_path: Path, vhost: Broker) -> None:
    with watched(tmp_path, vhost.url) as both:
        with raw_channel(vhost.url) as channel, pytest.raises(ChannelClosedByBroker, match="405"):
            channel.basic_get(TOKENS)
        both.check()
        assert both.leader.events("scheduler_lost_leadership") == []


def test_a_purge_while_a_leader_runs_loses_nothing(tmp_path: Path, vhost: Broker) -> None:
    with watched(tmp_path, vhost.url) as both:
        for _ in range(5):
            vhost.management.purge_queue(vhost.vhost, TOKENS)
        both.schedulers.kill(both.leader)
        vhost.management.purge_queue(vhost.vhost, TOKENS)
        both.check()
        assert both.standby.events("token_missing") == []


@pytest.mark.parametrize("again", [False, True])
def test_a_queue_that_is_deleted_is_declared_again_and_nothing_is_missed(
    tmp_path: Path, vhost: Broker, again: bool
) -> None:
    with watched(tmp_path, vhost.url) as both:
        with raw_channel(vhost.url) as channel:
            arguments = vhost.management.queue(vhost.vhost, TOKENS)["arguments"]
            channel.queue_delete(TOKENS)
            if again:  # so soon that RabbitMQ 3.10 may leave the consumers behind
                channel.queue_declare(TOKENS, durable=True, arguments=arguments)
                channel.queue_bind(TOKENS, "amqpworker.schedule", "main")
        for one in (both.leader, both.standby):
            one.wait_for("consumer_cancelled", timeout=PATIENCE)
        leader = both.schedulers.leader()
        both.check()
        if leader is both.leader:
            both.standby.wait_for("scheduler_standby", 2, timeout=PATIENCE)
        else:
            both.leader.wait_for("scheduler_standby", timeout=PATIENCE)
        both.schedulers.kill(leader)
        both.schedulers.leader()
        both.check()


def test_a_scheduler_that_finds_no_token_warns_since_when_nothing_is_known(tmp_path: Path, vhost: Broker) -> None:
    with watched(tmp_path, vhost.url) as both:
        both.check()
    only_a_token_is_left(vhost)
    vhost.management.purge_queue(vhost.vhost, TOKENS)
    with schedulers(tmp_path, vhost.url) as running, Ticks(vhost.url) as arriving:
        began = now()
        (warning,) = running.start().wait_for("token_missing", timeout=PATIENCE)
        since = milliseconds(warning["since"])
        assert began <= since <= now()
        until = now() + SECOND
        arriving.wait_for_time(until, running.count)
        judge(arriving.arrived(), running.count, since, until).check()


# ---- tokens by hand ------------------------------------------------------------------------------------------------


def test_nothing_is_sent_before_the_time_of_a_token_that_is_an_hour_ahead(tmp_path: Path, vhost: Broker) -> None:
    with watched(tmp_path, vhost.url) as both:
        publish_token(vhost, json.dumps({"until": time_text(now() + HOUR)}))
        both.leader.wait_for("token_adopted")
        both.leader.wait_for("clock_behind_token")
        adopted = now()
        wait_for_clock(adopted + 2 * SECOND)
        both.schedulers.kill(both.leader)
        assert both.schedulers.leader() is both.standby
        both.standby.wait_for("clock_behind_token")
        wait_for_clock(now() + 2 * SECOND)
        assert max(tick.nominal for tick in both.arriving.arrived()) <= adopted


def test_a_token_that_is_three_hours_ahead_is_refused_by_a_leader_and_by_the_next_one(
    tmp_path: Path, vhost: Broker
) -> None:
    ahead = json.dumps({"until": time_text(now() + 3 * HOUR)})
    with watched(tmp_path, vhost.url) as both:
        publish_token(vhost, ahead)
        (refused,) = both.leader.wait_for("token_refused")
        assert "more than two hours ahead" in refused["reason"]
        both.check()
    publish_token(vhost, ahead)
    with watched(tmp_path, vhost.url) as both:
        both.leader.wait_for("token_refused")
        both.check()
    only_a_token_is_left(vhost)


def test_malformed_tokens_and_commands_are_refused_and_strange_ones_do_no_harm(tmp_path: Path, vhost: Broker) -> None:
    commands = [
        *(("token", body) for body in (*MALFORMED, *STRANGE)),
        ("dance", "{}"),
        ("pause", "{}"),
        ("pause", '{"schedule": "\\ud800"}'),
        ("list", "{}"),
    ]
    with watched(tmp_path, vhost.url) as both:
        # The first of all makes use of any token, also of an old one.
        both.schedulers.kill(both.leader)
        leader = both.schedulers.leader()
        publish_many(vhost, *commands)
        leader.wait_for("token_refused", len(MALFORMED))
        leader.wait_for("command_refused", 2)
        both.check()
        assert leader.leads
    since = max(both.arriving.last().values())
    publish_many(vhost, *commands)
    with schedulers(tmp_path, vhost.url) as running, Ticks(vhost.url) as arriving:
        leader = running.start()
        leader.wait_for("token_refused", len(MALFORMED), timeout=PATIENCE)
        until = now() + SECOND
        arriving.wait_for_time(until, running.count)
        judge(arriving.arrived(), running.count, since, until).check()
    only_a_token_is_left(vhost)


# ---- many messages, and another service ----------------------------------------------------------------------------


@pytest.mark.parametrize("token_first", [True, False])
def test_thousands_of_waiting_commands_are_carried_out_and_no_tick_is_missed(
    tmp_path: Path, vhost: Broker, token_first: bool
) -> None:
    commands = [(kind, '{"schedule": "beside"}') for kind in ("pause", "resume") * (MANY // 2)]
    with schedulers(tmp_path, vhost.url, more=BESIDE) as running, Ticks(vhost.url) as arriving:
        first = running.start()
        since = starts_from(first)
        arriving.wait_for_time(now(), running.count)
        first.stop()
        running.running.remove(first)
        only_a_token_is_left(vhost)
        if token_first:
            publish_many(vhost, *commands, ("pause", '{"schedule": "beside"}'))
        else:
            put_behind(vhost, *commands, ("pause", '{"schedule": "beside"}'))
        second = running.start()
        second.wait_for("schedule_paused", MANY // 2 + 1, timeout=PATIENCE)
        until = now() + SECOND
        arriving.wait_for_time(until, running.count)
        judge([one for one in arriving.arrived() if one.schedule != "beside"], 3, since, until).check()
        assert arriving.last()["beside"] < until
    only_a_token_is_left(vhost)


def put_behind(broker: Broker, *commands: tuple[str, str]) -> None:
    """Put the token that waits behind commands."""
    with raw_channel(broker.url) as channel:
        method, properties, body = next(channel.consume(TOKENS))
        publish_many(broker, *commands)
        channel.confirm_delivery()
        channel.basic_publish("amqpworker.schedule", "main", body, properties)
        channel.basic_ack(method.delivery_tag)


def test_two_services_under_one_name_warn_and_the_second_sends_once_the_first_is_gone(
    tmp_path: Path, vhost: Broker
) -> None:
    with watched(tmp_path, vhost.url) as both:
        other = Schedulers(tmp_path, vhost.url, count=5, module="elsewhere")
        stranger = other.start()
        both.schedulers.running.append(stranger)
        stranger.wait_for("schedules_differ", timeout=PATIENCE)
        both.leader.wait_for("schedules_differ", timeout=PATIENCE)
        both.check()
        for one in (both.leader, both.standby):
            both.schedulers.kill(one)
        both.arriving.wait_for_more(5)
        until = now()
        judge(both.arriving.arrived(), 3, both.since, until - 2 * SECOND).check()
