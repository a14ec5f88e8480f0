"""What is enqueued in a transaction is sent after its commit."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import unittest
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.test import TestCase

from amqpworker import App, Message, NotConnected, Settings, Unconfirmed, Unroutable
from amqpworker.contrib.django import send_on_commit
from amqpworker.contrib.django.on_commit import after_commit
from amqpworker.contrib.django.tasks_api import TaskResultDoesNotExist, task_backends
from amqpworker.testing import running_inline
from tests.django.conftest import Site
from tests.django.test_backend import finished
from tests.programs import Program


class Undone(Exception):
    pass


def unroutable(message_id: str) -> Message[Any]:
    """Return a message to a queue that does not exist, which the broker returns."""
    task = task_backends["default"].app.tasks["shop.tasks.add"]
    made: Message[Any] = task.options(queue="nowhere", id=message_id).message([1], {})
    return made


def test_a_task_is_sent_after_the_commit_of_its_transaction(site: Site, worker: Program) -> None:
    with transaction.atomic():
        result = site.tasks.add.enqueue(1)
        with pytest.raises(TaskResultDoesNotExist):
            site.tasks.add.get_result(result.id)
        assert result.enqueued_at is None
    assert result.enqueued_at is not None
    assert finished(result).return_value == {"sum": 2}


def test_a_task_of_a_rolled_back_transaction_or_savepoint_is_not_sent(site: Site, worker: Program) -> None:
    with transaction.atomic():
        kept = site.tasks.add.enqueue(1)
        with pytest.raises(Undone), transaction.atomic():
            dropped = site.tasks.add.enqueue(2)
            raise Undone
    with pytest.raises(Undone), transaction.atomic():
        whole = site.tasks.add.enqueue(3)
        raise Undone
    assert finished(kept).return_value == {"sum": 2}
    for result in (dropped, whole):
        with pytest.raises(TaskResultDoesNotExist):
            site.tasks.add.get_result(result.id)


def test_a_message_of_a_plain_task_is_sent_after_the_commit(site: Site) -> None:
    app = task_backends["named"].app
    sent: list[Any] = []
    with transaction.atomic():
        send_on_commit(app.tasks["shop.own_app.plain"].message(1), app=app)
        transaction.on_commit(lambda: sent.append(True))
        assert not sent
    assert sent


def test_what_cannot_be_sent_after_the_commit_is_logged_and_raised_and_keeps_no_other_from_being_sent(
    site: Site, worker: Program, caplog: pytest.LogCaptureFixture
) -> None:
    lost = unroutable("lost")
    with pytest.raises(Unroutable, match="nowhere"), transaction.atomic():
        order = site.models.Order.objects.create()
        send_on_commit(lost)
        kept = site.tasks.complete.enqueue(order.pk)
        with pytest.raises(Undone), transaction.atomic():
            site.tasks.add.enqueue(1)
            raise Undone
    assert finished(kept).status == "SUCCESSFUL"
    order.refresh_from_db()
    assert order.is_done
    (logged,) = [record.getMessage() for record in caplog.records if "send_after_commit_failed" in record.getMessage()]
    assert "id=lost" in logged
    written = re.search(r" message=('.*?') ", f"{logged} ")
    assert written is not None
    read: Message[Any] = Message.load(json.loads(ast.literal_eval(written[1])))  # as the page about Django describes
    assert (read.id, read.queue, read.body) == (lost.id, lost.queue, lost.body)


def test_several_messages_that_cannot_be_sent_are_counted_in_one_error(site: Site) -> None:
    with pytest.raises(Unroutable) as caught, transaction.atomic():
        for name in ("first", "second", "third"):
            send_on_commit(unroutable(name))
    assert caught.value.__notes__ == ["2 more messages of this transaction were not sent: see the log."]


def test_a_broker_that_is_away_is_waited_for_once_per_transaction(
    site: Site, worker: Program, caplog: pytest.LogCaptureFixture
) -> None:
    away = App("amqp://127.0.0.1:1/", settings=Settings(send_timeout=0.5))
    with away, pytest.raises(NotConnected) as caught, transaction.atomic():
        for number in range(100):
            send_on_commit(unroutable(f"away-{number}"), app=away)
        kept = site.tasks.add.enqueue(1)
    logged = [record.getMessage() for record in caplog.records if "send_after_commit_failed" in record.getMessage()]
    assert [f"id=away-{number} " in line for number, line in enumerate(logged)] == [True] * 100
    assert sum("not tried" in line for line in logged) == 99
    assert caught.value.__notes__ == ["99 more messages of this transaction were not sent: see the log."]
    assert finished(kept).status == "SUCCESSFUL"


def test_a_queue_that_is_away_is_waited_for_once_and_keeps_no_other_from_being_sent(site: Site) -> None:
    app = App("amqp://127.0.0.1:1/")
    tried: list[str] = []

    def send(message: Message[Any]) -> None:
        tried.append(message.id)
        if message.queue == "nowhere":
            raise Unconfirmed("in time")

    with pytest.raises(Unconfirmed), transaction.atomic():
        for number in range(3):
            for message in (unroutable(f"away-{number}"), replace(unroutable(f"sent-{number}"), queue="emails")):
                after_commit(partial(send, message), message, app)
    assert tried == ["away-0", "sent-0", "sent-1", "sent-2"]


def test_in_a_test_of_django_what_cannot_be_sent_is_raised_by_the_block_that_captures_it(
    site: Site, worker: Program
) -> None:
    class Captured(TestCase):
        def test_captured(self) -> None:
            send_on_commit(unroutable("never run"))
            with self.captureOnCommitCallbacks(execute=True):
                send_on_commit(unroutable("captured"))

    result = unittest.TestResult()
    unittest.TestSuite([Captured("test_captured")]).run(result)
    ((_, error),) = result.errors
    assert "Unroutable" in error


def test_without_a_transaction_a_message_is_sent_at_once(site: Site) -> None:
    with pytest.raises(Unroutable):
        send_on_commit(unroutable("now"))


def test_in_a_test_that_may_not_use_the_database_messages_are_sent_and_run_inline(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("Database access not allowed")

    connection.ensure_connection()  # by an earlier test
    monkeypatch.setattr(BaseDatabaseWrapper, "ensure_connection", refuse)  # as pytest-django does
    with pytest.raises(Unroutable):
        send_on_commit(unroutable("without a database"))
    with running_inline(task_backends["default"].app):
        result = site.tasks.sleeps.enqueue(0)
        result.refresh()
        assert result.status == "SUCCESSFUL"


def test_in_manual_transaction_management_a_message_is_refused(site: Site) -> None:
    transaction.set_autocommit(False)
    try:
        site.models.Order.objects.create()
        with pytest.raises(
            transaction.TransactionManagementError, match=r"shop\.tasks\.add cannot be sent .* transaction"
        ):
            send_on_commit(unroutable("manual"))
        with pytest.raises(transaction.TransactionManagementError, match="on_commit=False in TASKS"):
            site.tasks.add.enqueue(1)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


def test_a_coroutine_below_a_transaction_sends_after_the_commit(site: Site, worker: Program) -> None:
    async def order() -> Any:
        made = await site.models.Order.objects.acreate()
        return await site.tasks.complete.aenqueue(made.pk)

    with transaction.atomic():
        result = async_to_sync(order)()
        with pytest.raises(TaskResultDoesNotExist):
            site.tasks.complete.get_result(result.id)
    assert finished(result).status == "SUCCESSFUL"


def test_in_a_coroutine_a_function_with_a_transaction_sends_after_its_commit(site: Site, worker: Program) -> None:
    def order() -> Any:
        with transaction.atomic():
            result = site.tasks.complete.enqueue(site.models.Order.objects.create().pk)
            with pytest.raises(Undone), transaction.atomic():
                dropped.append(site.tasks.add.enqueue(1))
                raise Undone
            return result

    async def view() -> tuple[Any, Any]:
        by_function = await sync_to_async(order)()
        at_once = await site.tasks.complete.aenqueue(0)
        assert at_once.enqueued_at is not None
        return by_function, at_once

    dropped: list[Any] = []
    for result in asyncio.run(view()):
        assert finished(result).status == "SUCCESSFUL"
    with pytest.raises(TaskResultDoesNotExist):
        site.tasks.add.get_result(dropped[0].id)


def test_with_on_commit_false_a_task_is_sent_at_once(site: Site) -> None:
    from shop.tasks import task

    made = task(backend="at-once", queue_name="at-once")(site.tasks.note_nothing)
    with pytest.raises(Undone), transaction.atomic():
        result = made.enqueue()
        raise Undone
    assert result.enqueued_at is not None
    with pytest.raises(ImproperlyConfigured, match="stores no results"):
        made.get_result(result.id)
