"""Coroutines that are cancelled at any moment: nothing of them is left, and no other message is affected."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from amqpworker import App, BatchFailed, Message, Sent, Unconfirmed, Unroutable
from amqpworker.task import RemoteTask
from amqpworker.testing.processes import free_ports
from tests.faults.conftest import Run
from tests.integration.tasks import QUEUE, echo_of
from tests.leftovers import publisher_of, wait_until_nothing_is_left, waiting_in
from tests.nodes import Node
from tests.proxy import Proxy
from tests.support import Broker, wait_until
from tests.workers import running

MakeApp = Callable[..., App]
Echo = RemoteTask[[str], str]

SECRET = "sesame-in-the-body"
AT_ONCE = 100


@pytest.fixture
def server(make_app: MakeApp) -> Iterator[App]:
    """A worker that replies to calls, on a connection of its own."""
    app = make_app()
    app.task(name="test.echo", queue=QUEUE, retry=None)(lambda text: text)
    with running(app, threads=4):
        yield app


class Chance:
    """Random numbers by a seed that is printed, so that a failure can be repeated."""

    def __init__(self) -> None:
        seed = random.randrange(1 << 30)
        print(f"seed {seed}")
        self._random = random.Random(seed)

    def number(self) -> float:
        """Return a number from 0 to 1."""
        return self._random.random()

    async def moment(self, seconds: float = 0.05) -> None:
        """Wait for a moment, or only until the next turn of the loop, or not at all."""
        for _ in range(self._random.randrange(3)):
            await asyncio.sleep(self._random.choice((0, self._random.random() * seconds)))


class Traffic:
    """Messages that are cancelled and messages that are kept, under few ids, to the same queues."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.echo: Echo = echo_of(app)
        app.queue("cancelled")
        app.queue("kept")
        self.chance = Chance()
        self.ends: Counter[str] = Counter()

    def message(self, number: int, queue: str) -> Message[str]:
        return self.echo.options(id=f"id-{number % 40}", queue=queue).message(f"{SECRET} {number}")

    def batch(self, number: int, queue: str) -> list[Message[str]]:
        return [self.message(number + offset, "nowhere" if offset % 4 == 0 else queue) for offset in range(12)]

    async def each(self, messages: list[Message[str]]) -> list[object]:
        async def source() -> AsyncIterator[Message[str]]:
            for message in messages:
                await asyncio.sleep(0)
                yield message

        return [outcome async for outcome in self.app.asend_each(source())]

    async def cancel(self, number: int) -> None:
        """Begin something and cancel it: in each ten, five sends, two calls, and three batches; half of the sends return."""
        work: Coroutine[Any, Any, object]
        match number % 10:
            case 0 | 1:
                work = self.app.asend(self.message(number, "nowhere"))
            case 2 | 3 | 4:
                work = self.app.asend(self.message(number, "cancelled"))
            case 5 | 6:
                work = self.app.acall(self.echo.message(SECRET), timeout=10)
            case 7:
                work = self.app.acall(self.message(number, "nowhere"), timeout=10)
            case 8:
                work = self.app.asend_many(self.batch(number, "cancelled"))
            case _:
                work = self.each(self.batch(number, "cancelled"))
        task = asyncio.create_task(work)
        await self.chance.moment()
        task.cancel()
        try:
            await task
        except (asyncio.CancelledError, Unroutable, BatchFailed) as error:
            self.ends[type(error).__name__] += 1
        else:
            self.ends["done"] += 1

    async def keep(self, number: int) -> int:
        """Send or call, check that the outcome is its own, and return how many messages are in the queue for it."""
        await self.chance.moment(0.1)
        message = self.message(number, "nowhere" if number % 5 == 0 else "kept")
        if number % 5 == 0:
            with pytest.raises(Unroutable) as failed:
                await self.app.asend(message)
            assert failed.value.message is message
            return 0
        if number % 5 == 1:
            assert await self.echo.acall(f"{SECRET} {number}") == f"{SECRET} {number}"
            return 0
        if number % 5 == 2:
            outcomes = await self.each(self.batch(number, "kept"))
            assert [type(one) for one in outcomes] == [Unroutable, Sent, Sent, Sent] * 3
            return 9
        assert (await self.app.asend(message)).id == message.id
        return 1

    async def in_turn(self, of: Callable[[int], Coroutine[Any, Any, Any]], numbers: range) -> list[Any]:
        return [await of(number) for number in numbers]


def test_2000_cancels_at_random_moments_leave_nothing_behind_and_reach_no_other_message(
    run: Run, server: App, make_app: MakeApp, vhost: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    traffic = Traffic(make_app(send_timeout=30.0, call_timeout=30.0))

    async def send_and_cancel() -> int:
        await traffic.app.asend_many([traffic.message(0, queue) for queue in (QUEUE, "cancelled")])
        cancelling = [traffic.in_turn(traffic.cancel, range(first, 2000, AT_ONCE)) for first in range(AT_ONCE)]
        keeping = [traffic.in_turn(traffic.keep, range(first, 500, 25)) for first in range(25)]
        kept = await asyncio.gather(asyncio.gather(*cancelling), asyncio.gather(*keeping))
        await asyncio.to_thread(wait_until_nothing_is_left, publisher_of(traffic.app))
        return sum(count for counts in kept[1] for count in counts)

    expected = run(traffic.app, send_and_cancel())
    print(traffic.ends)
    assert traffic.ends.total() == 2000
    assert traffic.ends["CancelledError"] > 200
    vhost.wait_for_count("kept", expected)
    shown = [f"{record.getMessage()} {record.exc_text} {vars(record)}" for record in caplog.records]
    assert [line for line in shown if SECRET in line] == []


def test_cancels_while_the_connection_is_lost_again_and_again_leave_nothing_behind(
    run: Run, server: App, make_app: MakeApp, vhost: Broker
) -> None:
    with Proxy(vhost.url) as proxy:
        traffic = Traffic(make_app(proxy.url, send_timeout=30.0))
        chance = traffic.chance

        async def lose() -> None:
            while True:
                await asyncio.sleep(0.2)
                proxy.reset_after(int(chance.number() * 20_000), "to_broker" if chance.number() < 0.5 else "to_client")

        async def keep(number: int) -> str:
            await chance.moment(0.1)
            return (await traffic.app.asend(traffic.echo.options(queue="kept").message(f"kept {number}"))).id

        async def cancel(number: int) -> None:
            try:
                await traffic.cancel(number)
            except Unconfirmed:
                traffic.ends["Unconfirmed"] += 1  # a call, which is not sent again

        async def send_and_cancel() -> set[str]:
            await traffic.app.asend_many([traffic.message(0, queue) for queue in (QUEUE, "cancelled")])
            losing = asyncio.create_task(lose())
            cancelling = [traffic.in_turn(cancel, range(first, 1000, 50)) for first in range(50)]
            keeping = [traffic.in_turn(keep, range(first, 300, 15)) for first in range(15)]
            kept = await asyncio.gather(asyncio.gather(*cancelling), asyncio.gather(*keeping))
            losing.cancel()
            proxy.heal()
            await asyncio.to_thread(wait_until_nothing_is_left, publisher_of(traffic.app))
            return {one for ids in kept[1] for one in ids}

        kept = run(traffic.app, send_and_cancel())
        print(traffic.ends, proxy.accepted, "connections")
    assert len(kept) == 300
    assert kept <= set(vhost.ids("kept"))


def test_sends_that_are_cancelled_while_the_broker_is_away_are_not_sent_when_it_is_back(
    run: Run, make_app: MakeApp, vhost: Broker
) -> None:
    port = free_ports(1)[0]
    app = make_app(f"amqp://guest:guest@127.0.0.1:{port}/{vhost.url.rpartition('/')[2]}", send_timeout=30.0)
    echo = echo_of(app)

    async def cancel_and_wait() -> set[str]:
        kept = [asyncio.create_task(echo.asend("kept")) for _ in range(20)]
        work = [
            lambda: echo.asend("x"),
            lambda: echo.acall("x"),
            lambda: app.asend_many(echo.message("x") for _ in "12"),
        ]
        cancelled = [asyncio.create_task(work[number % 3]()) for number in range(150)]
        publisher = publisher_of(app)
        await asyncio.to_thread(wait_until, lambda: publisher.session.problem is not None, 10, "an attempt has failed")
        for task in cancelled:
            task.cancel()
        await asyncio.gather(*cancelled, return_exceptions=True)
        with Proxy(vhost.url, port):
            ids = {(await task).id for task in kept}
            await asyncio.to_thread(wait_until_nothing_is_left, publisher)
        return ids

    ids = run(app, cancel_and_wait())
    assert (len(ids), set(vhost.ids(QUEUE))) == (20, ids)


def test_sends_that_are_cancelled_under_an_alarm_are_not_sent_after_it_and_the_others_are(
    run: Run, make_app: MakeApp, spare_node: Node
) -> None:
    app = make_app(spare_node.url(), send_timeout=30.0)
    echo = echo_of(app, "alarmed")
    broker = Broker(spare_node, "/")

    async def cancel_and_wait() -> set[str]:
        await echo.asend("before")
        with spare_node.alarm():
            first = asyncio.create_task(echo.asend("shows that the connection is blocked"))
            publisher = publisher_of(app)
            await asyncio.to_thread(wait_until, lambda: publisher.is_blocked, 10, "the connection is blocked")
            tasks = [asyncio.create_task(echo.asend("x")) for _ in range(200)]
            await asyncio.to_thread(wait_until, lambda: waiting_in(publisher) == 201, 10, "all wait")
            for task in tasks[::2]:
                task.cancel()
            ended = await asyncio.gather(*tasks[::2], return_exceptions=True)
            assert {type(one) for one in ended} == {asyncio.CancelledError}
        ids = {(await task).id for task in (first, *tasks[1::2])}
        await asyncio.to_thread(wait_until_nothing_is_left, publisher)
        return ids

    ids = run(app, cancel_and_wait())
    found = broker.ids("alarmed")
    assert (len(ids), set(found[1:])) == (101, ids)
    spare_node.management.delete_queue("/", "alarmed")
