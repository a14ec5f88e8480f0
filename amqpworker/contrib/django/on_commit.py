"""
Send messages once the transaction of a database has committed.

Decides that one message which cannot be sent keeps no other from being sent: all are tried, then the first error is raised. Once
the broker, or a queue, has been waited for in vain, the others for it are logged without being tried: each would wait as long.
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
from amqpworker.errors import ConnectionBlocked, NotConnected, QueueUnavailable, Unconfirmed
from amqpworker.log.logger import get_logger
from amqpworker.model.message import Message

log = get_logger(__name__)

BROKER_AWAY, QUEUE_AWAY = (ConnectionBlocked, NotConnected), (QueueUnavailable, Unconfirmed)
"""What would be raised of each message to the same broker, or to the same queue, after `send_timeout`."""


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
    after_commit(lambda: sender.send(message), message, sender, using)


def after_commit(send: Callable[[], object], message: Message[Any], app: App, using: str | None = None) -> None:
    """Call `send`, which sends the message by `app`, once the open transaction has committed; at once if none is open."""
    connection = connections[DEFAULT_DB_ALIAS if using is None else using]
    if connection.connection is None and not connection.in_atomic_block:
        send()  # to ask for its state would connect
        return
    if not connection.in_atomic_block and connection.autocommit:  # get_autocommit() counts as a use of the database
        send()
        return
    if not connection.in_atomic_block:
        raise TransactionManagementError(
            f"{message.task} cannot be sent after a commit: the database {connection.alias!r} is in manual transaction management"
            " (autocommit is off). Use transaction.atomic(), or send at once: app.send(…), or the option on_commit=False in TASKS."
        )
    # Those of this transaction that were not rolled back with a savepoint.
    earlier = (one[1] for one in reversed(connection.run_on_commit) if isinstance(one[1], _Sending))
    latest = next(earlier, None)
    sending = _Sending(send, message, app, latest.group if latest else _Group(connection))
    transaction.on_commit(sending, using)


class _Group:
    """The messages of one transaction. Django drops those that are rolled back: then nothing else refers to them."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.waiting: WeakSet[_Sending] = WeakSet()
        self.errors: list[Exception] = []
        self.away: dict[tuple[App, str], Exception] = {}
        """The errors after which no other message is tried, by app and queue, which is empty if all are meant."""

    def raise_at_end(self) -> None:
        """Raise the first error once all were tried; at once in a transaction: a test runs what it has captured."""
        if not self.errors or (self.waiting and not self._connection.in_atomic_block):
            return
        first, *others = self.errors
        self.errors, self.away = [], {}  # a test may capture more
        if others:
            first.add_note(f"{len(others)} more messages of this transaction were not sent: see the log.")
        raise first


class _Sending:
    """Sends one message after a commit."""

    def __init__(self, send: Callable[[], object], message: Message[Any], app: App, group: _Group) -> None:
        self.group = group
        self._send = send
        self._message = message
        self._app = app
        group.waiting.add(self)

    def __call__(self) -> None:
        self.group.waiting.discard(self)
        every, queue = (self._app, ""), (self._app, self._message.queue)
        away = self.group.away.get(every) or self.group.away.get(queue)
        if away is not None:
            self._failed(away, reason="not tried: the broker did not answer for an earlier message of this transaction")
        else:
            try:
                self._send()
            except Exception as error:  # noqa: BLE001 - raised by the last message
                if isinstance(error, BROKER_AWAY + QUEUE_AWAY):
                    self.group.away[every if isinstance(error, BROKER_AWAY) else queue] = error
                self._failed(error, exc_info=error)
        self.group.raise_at_end()

    def _failed(self, error: Exception, **why: Any) -> None:
        content = json.dumps(self._message.dump())
        log.error("send_after_commit_failed", task=self._message.task, id=self._message.id, message=content, **why)
        self.group.errors.append(error)


def _default_app() -> App:
    from amqpworker.contrib.django.backend import app_of_backend

    return app_of_backend("default")
