"""What sending promises, in threads, in event loops, and in those that have entered the app: the same values and errors."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from amqpworker import (
    App,
    BatchFailed,
    ConfigError,
    InvalidArguments,
    Message,
    SendError,
    Sent,
    Unroutable,
)
from tests.clients import PATIENCE, Client, failure_of, result_of, seen
from tests.integration.tasks import QUEUE, another_of, echo_of, messages
from tests.support import Broker


def no_queue(name: str) -> str:
    return (
        f"No queue is bound to exchange 'amqpworker.tasks' with routing key '{name}' (NO_ROUTE): is the name of the queue "
        "correct, and was it declared?"
    )


# ---- confirmed, or returned -----------------------------------------------------------------------------------------


def test_a_message_is_in_its_queue_when_send_returns(client: Client, vhost: Broker) -> None:
    message = echo_of(client.app).message("hello")
    sent = result_of(client.send(message))
    assert (sent.id, sent.task) == (message.id, "test.echo")
    assert vhost.ids(QUEUE) == [sent.id]


def test_a_message_for_an_undeclared_queue_is_unroutable_and_can_be_sent_again(client: Client, vhost: Broker) -> None:
    echo = echo_of(client.app)
    result_of(client.send(echo.message("makes the exchanges")))
    message = echo.options(queue="nowhere").message("x")
    assert failure_of(client.send(message)) == (Unroutable, no_queue("nowhere"), message)

    vhost.bind_queue("nowhere")
    assert result_of(client.send(message)).id == message.id
    found = vhost.get("nowhere")
    assert found is not None
    assert (found.properties.message_id, found.body) == (message.id, message.body)


def test_a_queue_that_was_deleted_is_declared_again_for_the_message_after_the_one_that_was_returned(
    client: Client, vhost: Broker
) -> None:
    echo = echo_of(client.app)
    result_of(client.send(echo.message("x")))
    vhost.delete_queue(QUEUE)
    message = echo.message("x")
    assert failure_of(client.send(message)) == (Unroutable, no_queue(QUEUE), message)
    result_of(client.send(message))
    assert vhost.ids(QUEUE) == [message.id]


def test_many_that_send_at_once_each_get_their_own_error(client: Client, vhost: Broker) -> None:
    echo = echo_of(client.app)
    result_of(client.send(echo.message("makes the exchanges")))
    nowhere = echo.options(queue="nowhere")
    batch = [(nowhere if number % 5 == 0 else echo).message("x") for number in range(300)]
    ends = [client.send(message) for message in batch]
    for message, end in zip(batch, ends, strict=True):
        if message.queue == "nowhere":
            assert failure_of(end) == (Unroutable, no_queue("nowhere"), message)
        else:
            assert result_of(end).id == message.id
    assert vhost.count(QUEUE) == 241


def test_two_messages_with_one_id_that_are_in_flight_together_are_distinguished(client: Client, vhost: Broker) -> None:
    echo = echo_of(client.app)
    result_of(client.send(echo.options(id="same").message("makes the exchanges")))
    queues = [QUEUE, "nowhere"] * 20
    ends = [client.send(echo.options(id="same", queue=queue).message("x")) for queue in queues]
    assert [type(end.exception(PATIENCE)) for end in ends] == [type(None), Unroutable] * 20
    outcomes = result_of(client.send_each(echo.options(id="same", queue=queue).message("x") for queue in queues))
    assert [type(one) for one in outcomes] == [Sent, Unroutable] * 20
    assert vhost.ids(QUEUE) == ["same"] * 41


# ---- batches --------------------------------------------------------------------------------------------------------


def test_outcomes_are_in_the_order_of_the_messages(client: Client, vhost: Broker) -> None:
    echo = echo_of(client.app)
    batch = [echo.options(queue="nowhere" if number % 3 == 0 else QUEUE).message("x") for number in range(1000)]
    outcomes = result_of(client.send_each(iter(batch)))
    assert [type(one) for one in outcomes] == [Unroutable if number % 3 == 0 else Sent for number in range(1000)]
    failed = [one.message for one in outcomes if isinstance(one, Unroutable)]
    assert failed == batch[::3]
    assert [one.id for one in outcomes if isinstance(one, Sent)] == [one.id for one in batch if one.queue == QUEUE]
    assert len({id(one) for one in outcomes}) == 1000
    assert vhost.count(QUEUE) == 666


def test_a_batch_returns_all_in_order_or_reports_what_was_sent_and_what_was_not(client: Client, vhost: Broker) -> None:
    echo = echo_of(client.app)
    good = list(messages(echo, 300))
    assert [one.id for one in result_of(client.send_many(good))] == [one.id for one in good]
    assert result_of(client.send_many([])) == []

    batch = [echo.options(queue=queue).message("x") for queue in (QUEUE, "nowhere", QUEUE, "elsewhere")]
    error = client.send_many(batch).exception(PATIENCE)
    assert isinstance(error, BatchFailed)
    assert str(error) == "2 of 4 messages were not sent (2 sub-exceptions)"
    assert [one.id for one in error.sent] == [batch[0].id, batch[2].id]
    assert [seen(one) for one in error.exceptions] == [
        (Unroutable, no_queue("nowhere"), batch[1]),
        (Unroutable, no_queue("elsewhere"), batch[3]),
    ]
    assert vhost.count(QUEUE) == 302


def test_a_batch_with_a_message_that_can_never_be_sent_fails_for_that_one_only(client: Client, vhost: Broker) -> None:
    echo = echo_of(client.app)
    vhost.declare_queue("other", x_delivery_limit=7)  # not as this app declares it
    wrong = another_of(client.app, "other").message()
    large = echo.options(headers={f"h{number}": "x" for number in range(5)}).message("x")
    error = client.send_many([*messages(echo, 5), wrong, large, *messages(echo, 5)]).exception(PATIENCE)
    assert isinstance(error, BatchFailed)
    (only,) = error.exceptions
    assert seen(only)[::2] == (SendError, wrong)
    assert isinstance(only.__cause__, ConfigError)
    assert str(only) == str(only.__cause__)
    assert len(error.sent) == vhost.count(QUEUE) == 11


def test_errors_can_be_pickled_and_copied(client: Client) -> None:
    echo = echo_of(client.app)
    result_of(client.send(echo.message("makes the exchanges")))
    batch = [echo.options(queue=queue).message("x") for queue in (QUEUE, "nowhere")]
    error = client.send_many(batch).exception(PATIENCE)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is BatchFailed
        assert [one.id for one in again.sent] == [batch[0].id]
        assert [seen(one) for one in again.exceptions] == [(Unroutable, no_queue("nowhere"), batch[1])]


def test_what_reading_raises_is_raised_after_the_outcomes_of_what_was_read(client: Client, vhost: Broker) -> None:
    def failing() -> Iterator[Message[str]]:
        yield from messages(echo, 50)
        raise LookupError("the file has ended")

    echo = echo_of(client.app)
    error = client.send_many(failing()).exception(PATIENCE)
    assert seen(error)[:2] == (LookupError, "the file has ended")
    (note,) = error.__notes__  # type: ignore[union-attr]
    assert note.removeprefix("a") == "send_many: 50 messages had been sent before, and 0 had failed."
    assert vhost.count(QUEUE) == 50


@pytest.mark.parametrize("entered", [False, True])
def test_many_messages_may_be_read_from_an_asynchronous_source(app: App, vhost: Broker, entered: bool) -> None:
    echo = echo_of(app)

    async def source() -> AsyncIterator[Message[str]]:
        for number in range(300):
            await asyncio.sleep(0)
            yield (echo.options(queue="nowhere") if number % 3 == 0 else echo).message("x")

    async def run() -> None:
        await app.asend(echo.message("makes the exchanges"))
        outcomes = [outcome async for outcome in app.asend_each(source())]
        assert [isinstance(one, Unroutable) for one in outcomes] == [number % 3 == 0 for number in range(300)]
        with pytest.raises(BatchFailed) as failed:
            await app.asend_many(source())
        assert (len(failed.value.exceptions), len(failed.value.sent)) == (100, 200)
        assert len(await app.asend_many(messages(echo, 5000))) == 5000

    async def enter() -> None:
        async with app:
            await run()

    asyncio.run(enter() if entered else run())
    vhost.wait_for_count(QUEUE, 5401)


# ---- refused before anything leaves ---------------------------------------------------------------------------------


def test_wrong_arguments_and_what_is_not_a_message_are_refused_before_anything_leaves(
    client: Client, vhost: Broker
) -> None:
    echo = echo_of(client.app)
    kind, text, _ = failure_of(client.begin(echo.send, echo.asend, 5))
    assert kind is InvalidArguments
    assert "text" in text
    assert failure_of(client.begin(echo.call, echo.acall, 5)) == (kind, text, None)
    kind, text, _ = failure_of(client.begin(echo.send, echo.asend, "x" * 1024 * 1024))
    assert kind is InvalidArguments
    assert "1048576" in text
    refused = (InvalidArguments, "Expected a Message, such as task.message(…) returns, got a str.", None)
    not_a_message: Any = "x"
    for one in (client.send(not_a_message), client.call(not_a_message), client.send_many([not_a_message])):
        assert failure_of(one) == refused
    assert vhost.queues() == []


def test_what_amqp_cannot_carry_is_refused_before_it_leaves(client: Client, vhost: Broker) -> None:
    message = echo_of(client.app).message("x")
    for broken, text in (
        (replace(message, queue="q" * 256), "routing key"),
        (replace(message, id="\ud800"), "message_id"),
        (replace(message, headers={"bad": object()}), "'bad'"),
    ):
        kind, found, _ = failure_of(client.send(broken))
        assert kind is InvalidArguments
        assert found.startswith("The message cannot be encoded for AMQP: ")
        assert text in found
    result_of(client.send(message))
    assert vhost.count(QUEUE) == 1


# ---- a closed app ---------------------------------------------------------------------------------------------------


def test_an_app_that_was_closed_sends_again_and_what_was_in_flight_is_confirmed(client: Client, vhost: Broker) -> None:
    echo = echo_of(client.app)
    result_of(client.send(echo.message("x")))
    ends = [client.send(message) for message in messages(echo, 100)]
    client.app.close()
    for end in ends:
        result_of(end)
    result_of(client.send(echo.message("x")))
    assert vhost.count(QUEUE) == 102
