"""
The results of an app's messages: the methods of an `App` that return them, and what a `Sent` needs to do the same.

Decides which store they are in, and of which task's return hint a value is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from amqpworker.client.event_loop_warning import require_event_loop, warn_in_event_loop
from amqpworker.client.result_waits import WantedResult
from amqpworker.client.sent import Origin, due_of, never_stored, no_results, value_of
from amqpworker.client.stored_results import StoredResults
from amqpworker.errors import InvalidArguments, ResultTimeout
from amqpworker.model.headers import time_text
from amqpworker.model.reply import decode_reply
from amqpworker.policies.durations import duration
from amqpworker.results.row import ResultRow
from amqpworker.results.store import ResultStore, open_store

if TYPE_CHECKING:
    from amqpworker.client.producer import Producer
    from amqpworker.model.message import Message
    from amqpworker.routing.queues import Plan
    from amqpworker.settings import Settings
    from amqpworker.task import RemoteTask, Task

DEFAULT_TIMEOUT = 10.0


class ResultsApp:
    """The methods of an `App` about stored results."""

    results: str | None
    plan: Plan
    settings: Settings
    tasks: Mapping[str, Task[Any, Any]]
    remotes: Mapping[str, RemoteTask[Any, Any]]
    # At most one, by the URL of the store: of several threads that open one `setdefault` keeps the first, without a lock.
    _stored_results: dict[str, StoredResults]
    _origins: dict[str, Origin[Any]]

    @property
    def producer(self) -> Producer:
        """The sending side."""
        raise NotImplementedError

    def result(self, task_id: str, *, timeout: float | timedelta | None = None) -> Any:
        """
        Return what the task of the message with this id returned, as soon as it is stored.

        Any process with this app may ask. It waits at most `timeout` seconds, 10 by default. The value has the type of the task's
        return hint, or of JSON if the app does not know the task. If several messages have this id, it is the result of the one
        that was sent last.

        Raises:
            TaskFailed: the task failed.
            ResultTimeout: nothing was stored in this time.
            ResultStoreError: the store cannot be read.
            MalformedReply: what is stored is not a result.
            InvalidResult: the result does not match the task's return hint.
            InvalidArguments: `timeout` is not a duration, or `task_id` is not an id.
            ConfigError: the app stores no results, or the store cannot be opened.
        """
        seconds = duration(DEFAULT_TIMEOUT if timeout is None else timeout, "timeout")
        warn_in_event_loop("result")
        return self._value_of_row(self.stored_results().wait(_wanted(task_id), seconds), task_id, seconds)

    async def aresult(self, task_id: str, *, timeout: float | timedelta | None = None) -> Any:
        """As `result`, without blocking the event loop: the store is read in another thread."""
        seconds = duration(DEFAULT_TIMEOUT if timeout is None else timeout, "timeout")
        require_event_loop()
        row = await self.stored_results().await_row(_wanted(task_id), seconds)
        return self._value_of_row(row, task_id, seconds)

    def _value_of_row(self, row: ResultRow | None, task_id: str, seconds: float) -> Any:
        if row is None:
            raise ResultTimeout(f"No result of a message with id {task_id} within {seconds:g} s.")
        return value_of(decode_reply(row.reply), self.origin(row.task).decode)

    def store(self) -> ResultStore | None:
        """Return the result store, which connects at its first use; `None` if results are not stored."""
        return None if self.results is None else self.stored_results().store

    def stored_results(self) -> StoredResults:
        """Return what reads results of the store, and waits for them; raises ConfigError if results are not stored."""
        url = self.results
        if url is None:
            no_results()
        found = self._stored_results.get(url)
        if found is None:
            made = StoredResults(open_store(url, self.plan.names.namespace, self.settings.declare))
            found = self._stored_results.setdefault(url, made)
        return found

    def _close_results(self) -> None:
        # They are kept in the dictionary: other threads may be using them.
        for results in list(self._stored_results.values()):
            results.close(self.settings.send_timeout)

    def origin(self, name: str) -> Origin[Any]:
        """Return the one origin of a task's messages, which is made once: each message that is sent needs it."""
        origin = self._origins.get(name)
        if origin is None:
            task = self.tasks.get(name)
            results = self.stored_results if task is None or task.stores_result else never_stored
            known = task or self.remotes.get(name)
            on_sent = self._note_sent if task is not None and task.track else None
            decode = json.loads if known is None else known.signature.decode_result
            origin = Origin(results, decode, self, on_sent, task is not None and task.dedupe)
            if known is not None:
                self._origins[name] = origin
        return origin

    def _note_sent(self, message: Message[Any]) -> None:
        """Store soon that a message of a tracked task was sent."""
        if self.results is None:
            return
        now, task = self.producer.now(), self.tasks[message.task]
        due = due_of(message, now)
        kept = self.settings.result_ttl if task.result_ttl is None else task.result_ttl
        # A task that dedupes needs the result of an earlier message: a row without this time never takes its place.
        first_sent = "" if message.first_sent is None or task.dedupe else time_text(message.first_sent)
        row = ResultRow(message.id, "sent", message.task, b"", first_sent, now, max(now, due) + kept)
        self.stored_results().note_sent(row)

    def place_of(self, name: str) -> tuple[str, str] | None:
        """Return the module and name under which another process finds a task of this app; None if there is none."""
        task: Any = self.tasks.get(name) or self.remotes.get(name)
        if task is None:
            return None
        module, qualified = task.__module__, task.__qualname__
        return (module, qualified) if _at(sys.modules.get(module), qualified) is task else None


def _wanted(task_id: object) -> WantedResult:
    if not isinstance(task_id, str):
        raise InvalidArguments(
            f"result takes the id of a message, not a {type(task_id).__name__}: a Sent has its own result()."
        )
    return WantedResult(task_id)


def _at(place: object, path: str) -> object:
    for name in path.split("."):
        place = getattr(place, name, None)
    return place
