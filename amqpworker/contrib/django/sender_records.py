"""
The records that a process stores as it enqueues tasks: before each is sent, so that `get_result` has it from then on.

Decides what a result store that is away costs a sender: nothing is raised, and after an attempt that has taken long, no other is
made for a while. The worker stores the record then, once the task begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

from amqpworker.app import App
from amqpworker.contrib.django.request_record import RequestRecord, put_record, record_of
from amqpworker.errors import ConfigError, ResultStoreError
from amqpworker.log.logger import get_logger
from amqpworker.model.message import Message
from amqpworker.results.row import record_id

log = get_logger(__name__)

LONG = 0.5
"""Seconds: a server that refuses a connection does so sooner."""

PAUSE_FACTOR, LONGEST_PAUSE = 10.0, 60.0
"""Senders spend at most a tenth of their time on a store that does not answer."""


class SenderRecords:
    """Stores the records of an app's tasks; safe to use from many threads."""

    def __init__(self, app: App, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._monotonic = monotonic
        self._paused_until = 0.0

    def put(self, message: Message[Any], run_after: datetime | None) -> RequestRecord:
        """Store the record of a message that is about to be sent, if the store can be written to, and return it."""
        record = record_of(message, run_after)
        began = self._monotonic()
        if began < self._paused_until:
            return record
        try:
            put_record(self._app, message.id, record)
        except (ResultStoreError, ConfigError) as error:
            log.warning("record_failed", task=message.task, id=message.id, reason=str(error))
            now = self._monotonic()
            if now - began > LONG:
                self._paused_until = now + min(PAUSE_FACTOR * (now - began), LONGEST_PAUSE)
        return record

    def forget(self, message_id: str) -> None:
        """Delete the record of a message that could not be sent, if the store can be written to."""
        store = self._app.store()
        if store is not None and self._monotonic() >= self._paused_until:
            with suppress(ResultStoreError, ConfigError):
                store.delete((record_id(message_id),))
