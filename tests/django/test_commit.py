"""What is enqueued in a transaction is sent after its commit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from amqpworker import Unroutable
from amqpworker.contrib.django import send_on_commit
from amqpworker.contrib.django.tasks_api import TaskResultDoesNotExist, task_backends
from tests.django.conftest import Site
from tests.django.test_backend import finished
from tests.programs import Program


class Undone(Exception):
    pass


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
    app = task_backends["default"].app
    app.settings = app.settings
    lost = app.tasks["shop.tasks.add"].options(queue="nowhere", id="lost").message([1], {})
    order = None
    with pytest.raises(Unroutable), transaction.atomic():
        order = site.models.Order.objects.create()
        send_on_commit(lost)
        kept = site.tasks.complete.enqueue(order.pk)
        with transaction.atomic():
            site.tasks.add.enqueue(1)
    assert finished(kept).status == "SUCCESSFUL"
    order.refresh_from_db()
    assert order.is_done
    logged = [record for record in caplog.records if "send_after_commit_failed" in record.getMessage()]
    assert len(logged) == 1
    assert "nowhere" in str(vars(logged[0])) or json.dumps(lost.dump())


def test_with_on_commit_false_a_task_is_sent_at_once(site: Site) -> None:
    from shop.tasks import task

    made = task(backend="at-once", queue_name="at-once")(site.tasks.note_nothing)
    with pytest.raises(Undone), transaction.atomic():
        result = made.enqueue()
        raise Undone
    assert result.enqueued_at is not None
    with pytest.raises(ImproperlyConfigured, match="stores no results"):
        made.get_result(result.id)
