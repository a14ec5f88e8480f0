"""
The tasks of amqpworker that run tasks of Django: one for each, of the parameters `args` and `kwargs`.

Decides what is recorded of a run, and when `task_started` and `task_finished` are sent. A record that cannot be stored fails no
run; how the task ended is stored by the worker, as of all tasks.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from amqpworker.app import App
from amqpworker.broker.labels import process_name
from amqpworker.contrib.django.database_connections import closing_old
from amqpworker.contrib.django.request_record import RequestRecord, Stored, get_stored, put_record
from amqpworker.contrib.django.shown_result import finish, result_of, running_row
from amqpworker.contrib.django.tasks_api import TaskContext, task_finished, task_started
from amqpworker.errors import ConfigError, ResultStoreError, RetryLater, TimeLimitExceeded
from amqpworker.log.logger import get_logger
from amqpworker.model.dead_letter import DeadLetter
from amqpworker.worker.context import Run, current

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of one task of Django: `task` is as it was decorated, `sender` the class of its backend, for signals."""

    app: App
    task: Any
    sender: type

    def function(self) -> Callable[..., Any]:
        """Return the function that workers call."""
        if inspect.iscoroutinefunction(self.task.func):

            async def run_async(args: list[Any], kwargs: dict[str, Any]) -> Any:
                record = await asyncio.to_thread(self._begin, args, kwargs)
                try:
                    return await self.task.func(*self._context(record), *args, **kwargs)
                except asyncio.CancelledError as error:
                    if current().time_left == 0:
                        over = TimeLimitExceeded()
                        over.__cause__ = error
                        await asyncio.to_thread(self._fail, record, over)
                    raise
                except Exception as error:
                    await asyncio.to_thread(self._fail, record, error)
                    raise

            return run_async

        def run(args: list[Any], kwargs: dict[str, Any]) -> Any:
            record = self._begin(args, kwargs)
            try:
                return self.task.func(*self._context(record), *args, **kwargs)
            except Exception as error:
                self._fail(record, error)
                raise

        return run

    def _begin(self, args: list[Any], kwargs: dict[str, Any]) -> RequestRecord:
        run = current()
        stored = Stored()
        try:
            stored = get_stored(self.app, run.id)
        except (ResultStoreError, ConfigError) as error:
            log.warning("record_failed", task=run.task, id=run.id, reason=str(error))
        record = stored.record
        if record is None or stored.is_old:
            record = record or self._new(args, kwargs, run.queue)
            self._put(run.id, record)
        with closing_old():
            task_started.send_robust(sender=self.sender, task_result=self._running(record))
        return record

    def _fail(self, record: RequestRecord, error: Exception) -> None:
        run, kind = current(), type(error)
        text = "".join(traceback.format_exception(error))
        failure = None if isinstance(error, RetryLater) else (f"{kind.__module__}.{kind.__qualname__}", text)
        self._put(run.id, record.ended(run.attempt, process_name(), run.started, failure))

    def _context(self, record: RequestRecord) -> tuple[Any, ...]:
        return (TaskContext(task_result=self._running(record)),) if self.task.takes_context else ()

    def _new(self, args: list[Any], kwargs: dict[str, Any], queue: str) -> RequestRecord:
        return RequestRecord(task=self.task.module_path, args=args, kwargs=kwargs, queue=queue)

    def _put(self, task_id: str, record: RequestRecord) -> None:
        try:
            put_record(self.app, task_id, record)
        except (ResultStoreError, ConfigError) as error:
            log.warning("record_failed", task=record.task, id=task_id, reason=str(error))

    def _running(self, record: RequestRecord) -> Any:
        run = current()
        row = running_row(run.task, run.id, run.attempt, process_name(), run.started)
        return result_of(self.task, run.id, record, row)

    # ---- hooks ------------------------------------------------------------------------------------------------------

    def on_success(self, run: Run, value: Any) -> None:
        """Send `task_finished` of a task that has succeeded."""
        self._finished(run.id, run.delivery.body, run.queue, True, value)

    def on_dead(self, letter: DeadLetter) -> None:
        """Send `task_finished` of a task that has failed."""
        self._finished(letter.id, letter.message.body, letter.message.queue, False, None)

    def _finished(self, task_id: str, body: bytes, queue: str, succeeded: bool, value: Any) -> None:
        with closing_old():
            stored = get_stored(self.app, task_id)
            record = stored.record or self._new(**json.loads(body), queue=queue)
            result = result_of(self.task, task_id, record, stored.row)
            if not result.is_finished:
                finish(result, succeeded, value, datetime.now(UTC))
            task_finished.send_robust(sender=self.sender, task_result=result)
