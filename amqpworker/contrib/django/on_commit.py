"""
Send messages once the transaction of a database has committed.

Decides that one message which cannot be sent keeps no other from being sent: all are tried, then the first error is raised.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from django.db import connections, transaction
from django.db.transaction import TransactionManagementError
from django.db.utils import DEFAULT_DB_ALIAS

from amqpworker.app import App
from amqpworker.log.logger import get_logger
from amqpworker.model.message import Message

log = get_logger(__name__)


def send_on_commit(message: Message[Any], using: str | None = None, *, app: App | None = None) -> None:
    """
    Send a message once the open transaction of the database `using` has committed; at once if none is open.

    Nothing is sent if the transaction is rolled back. It is sent by `app`, without one by that of the backend `default` in
    `TASKS`. Once the transaction has committed, what cannot be sent is logged with its message, and raised. If the process ends
    between the commit and the sending, the message is lost: store `message.dump()` in the transaction if that must not be.

    Raises:
        SendError: the message was not confirmed; after a commit it is raised where the transaction ends.
        TransactionManagementError: the database is in manual transaction management.
    """
    sender = app if app is not None else _default_app()
    after_commit(lambda: sender.send(message), message, using)


def after_commit(send: Callable[[], object], message: Message[Any], using: str | None = None) -> None:
    """Call `send`, which sends the message, once the open transaction has committed; at once if none is open."""
    connection = connections[DEFAULT_DB_ALIAS if using is None else using]
    if connection.connection is None and not connection.in_atomic_block:
        send()  # to ask for its state would connect
        return
    if not connection.in_atomic_block and connection.get_autocommit():
        send()
        return
    if not connection.in_atomic_block:
        raise TransactionManagementError(
            f"{message.task} cannot be sent after a commit: the database {connection.alias!r} is in manual transaction management"
            " (autocommit is off). Use transaction.atomic(), or send at once: app.send(…), or the option on_commit=False in TASKS."
        )
    # Those of this transaction that were not rolled back with a savepoint.
    earlier = [one[1] for one in connection.run_on_commit if isinstance(one[1], _Sending)]
    group = earlier[-1].group if earlier else _Group()
    transaction.on_commit(_Sending(send, message, group), using)


class _Group:
    """The messages of one transaction. Django drops those that are rolled back: then nothing else refers to them."""

    def __init__(self) -> None:
        self.waiting: WeakSet[_Sending] = WeakSet()
        self.errors: list[Exception] = []


class _Sending:
    """Sends one message after a commit."""

    def __init__(self, send: Callable[[], object], message: Message[Any], group: _Group) -> None:
        self.group = group
        self._send = send
        self._message = message
        group.waiting.add(self)

    def __call__(self) -> None:
        self.group.waiting.discard(self)
        try:
            self._send()
        except Exception as error:
            log.error(
                "send_after_commit_failed",
                task=self._message.task,
                id=self._message.id,
                message=json.dumps(self._message.dump()),
                exc_info=error,
            )
            self.group.errors.append(error)
        if self.group.errors and not self.group.waiting:
            first, *others = self.group.errors
            self.group.errors = []
            if others:
                first.add_note(f"{len(others)} more messages of this transaction were not sent: see the log.")
            raise first


def _default_app() -> App:
    from amqpworker.contrib.django.backend import app_of_backend

    return app_of_backend("default")
