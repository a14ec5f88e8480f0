"""
The backend for `TASKS` of Django: tasks of Django are sent and run as tasks of amqpworker.

Decides how a task of Django is registered: when Django validates it, under the path of its function. `task_runs` decides what
happens in workers, `request_record` what is stored, `shown_result` what Django is shown of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from django.utils.module_loading import import_string

from amqpworker.app import App
from amqpworker.contrib.django.django_options import checked_options, declare_queues, project_app
from amqpworker.contrib.django.on_commit import after_commit
from amqpworker.contrib.django.request_record import RequestRecord, get_stored
from amqpworker.contrib.django.shown_result import result_of, set_enqueued, time_shown
from amqpworker.contrib.django.task_runs import Runs
from amqpworker.contrib.django.tasks_api import (
    DEFAULT_TASK_PRIORITY,
    BaseTaskBackend,
    InvalidTask,
    Task,
    TaskResultDoesNotExist,
    task_backends,
    task_enqueued,
)
from amqpworker.errors import AmqpWorkerError, SendError, Unconfirmed
from amqpworker.model.message import Message, new_id
from amqpworker.policies.expected_errors import ThrowsSpec
from amqpworker.policies.retry import DEFAULT, PolicySpec
from amqpworker.policies.time_limit import LimitSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class AmqpWorkerTask(Task):
    """A task of Django with what `@task(…)` may state for workers, as in `@app.task`."""

    retry: PolicySpec = DEFAULT
    time_limit: LimitSpec = None
    hard_limit: LimitSpec = None
    isolated: bool = False
    throws: ThrowsSpec = ()


OPTIONS = ("retry", "time_limit", "hard_limit", "isolated", "throws")


class AmqpWorkerBackend(BaseTaskBackend):
    """Sends tasks of Django to RabbitMQ; each thread has its own, with the app of the process."""

    task_class = AmqpWorkerTask
    supports_defer = True
    supports_async_task = True
    supports_priority = False

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        self._options = checked_options(alias, self.options)
        kept = project_app(alias, self._options)
        self.app, self._records, self._tasks = kept.app, kept.records, kept.tasks
        self.supports_get_result = self.app.results is not None
        declare_queues(alias, self.app, params.get("QUEUES", self.queues))

    def validate_task(self, task: Any) -> None:
        """Check a task of Django and register it; raises InvalidTask that states what to write instead."""
        path = f"{task.func.__module__}.{task.func.__qualname__}"
        if task.priority != DEFAULT_TASK_PRIORITY:
            raise InvalidTask(
                f"Task {path} has priority {task.priority}: queues here have no priorities. Give urgent tasks a queue of their "
                f"own, by queue_name."
            )
        if self.queues and task.queue_name not in self.queues:
            known = ", ".join(sorted(self.queues))
            raise InvalidTask(
                f"Task {path} names the queue {task.queue_name!r}, which TASKS[{self.alias!r}]['QUEUES'] has not: it has {known}."
            )
        super().validate_task(task)
        self._register(task, path)

    def _register(self, task: Any, path: str) -> None:
        known = self.app.tasks.get(path)
        if known is None:
            runs = Runs(self.app, task, type(self))
            options = {name: getattr(task, name) for name in OPTIONS}
            try:
                made = self.app.task(name=path, queue=task.queue_name, track=True, **options)(runs.function())
            except AmqpWorkerError as error:
                raise InvalidTask(f"Task {path}: {error}") from error
            self._tasks[path] = task
            made.on_success(runs.on_success)
            made.on_dead(runs.on_dead)
        elif known.signature.hints.keys() != {"args", "kwargs"}:
            raise InvalidTask(f"Task {path} is a task of the app already: decorate it by one of @task and @app.task.")
        else:
            self.app.queue(task.queue_name)

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """
        Send a task; in a transaction of the database, once that has committed.

        Raises:
            SendError: the message was not confirmed; after a commit it is raised where the transaction ends.
            TypeError: the arguments are not JSON.
        """
        run_after = _aware(task.run_after)
        registered = self.app.tasks[task.module_path]
        # Django makes plain JSON of the arguments.
        draft = RequestRecord(task=task.module_path, args=list(args), kwargs=dict(kwargs), queue=task.queue_name)
        result = result_of(task, new_id(), draft)
        options = registered.options(id=result.id, queue=task.queue_name, at=run_after)
        message = options.message(result.args, result.kwargs)
        if self._options.on_commit:
            after_commit(lambda: self._send(message, run_after, result), message, self.app, self._options.database)
        else:
            self._send(message, run_after, result)
        return result

    def _send(self, message: Message[Any], run_after: datetime | None, result: Any) -> None:
        record = self._records.put(message, run_after)
        try:
            self.app.send(message)
        except SendError as error:
            if not isinstance(error, Unconfirmed):  # else it may have been sent
                self._records.forget(message.id)
            raise
        set_enqueued(result, record)
        task_enqueued.send_robust(sender=type(self), task_result=result)

    def get_result(self, result_id: str) -> Any:
        """
        Return what the result store has of a task: from its sending until `result_ttl` after it has ended.

        Raises:
            TaskResultDoesNotExist: it has nothing: not sent yet, or expired; or the task does not exist any more.
            ResultStoreError: it cannot be read.
            ImproperlyConfigured: the app stores no results.
        """
        if not self.supports_get_result:
            raise ImproperlyConfigured(
                f"The app of TASKS[{self.alias!r}] stores no results: give it a store, such as "
                f"OPTIONS={{'results': 'sqlite:///results.db'}}."
            )
        stored = get_stored(self.app, str(result_id))
        record = stored.record
        if record is None:
            raise TaskResultDoesNotExist(
                f"Task {result_id} was not found: it is not sent yet, or its result has expired."
            )
        return result_of(self._task_of(record, result_id), str(result_id), record, stored.row)

    def _task_of(self, record: RequestRecord, result_id: str) -> Any:
        try:
            named = import_string(record.task)
        except ImportError as error:
            raise TaskResultDoesNotExist(_gone(record, result_id)) from error
        task = named if isinstance(named, Task) else self._tasks.get(record.task)  # it may have another name
        if task is None:
            raise TaskResultDoesNotExist(_gone(record, result_id))
        try:
            return replace(task, backend=self.alias, queue_name=record.queue, run_after=time_shown(record.run_after))
        except InvalidTask:
            return task  # QUEUES has no longer the queue that it was sent to


def app_of_backend(alias: str) -> App:
    """Return the app of a backend in `TASKS`; raises ImproperlyConfigured if that is another one's."""
    backend = task_backends[alias]
    if not isinstance(backend, AmqpWorkerBackend):
        raise ImproperlyConfigured(
            f"TASKS[{alias!r}] has another backend than 'amqpworker.contrib.django.AmqpWorkerBackend'."
        )
    return backend.app


def _gone(record: RequestRecord, result_id: str) -> str:
    return f"The result {result_id} is of {record.task}, which does not exist any more."


def _aware(moment: datetime | None) -> datetime | None:
    # Without USE_TZ, Django's times are naive.
    return timezone.make_aware(moment) if moment is not None and timezone.is_naive(moment) else moment
