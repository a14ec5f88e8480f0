"""
What a worker process consumes: which queues, by how many threads, with which prefetch.

Decides what is an error and what is worth a warning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from amqpworker.app import App
from amqpworker.errors import ConfigError
from amqpworker.log.logger import get_logger
from amqpworker.task import Task
from amqpworker.worker.executor import is_coroutine
from amqpworker.worker.options import Prefetch, QueueOptions, WorkerOptions
from amqpworker.worker.prefetch_size import Places
from amqpworker.worker.unknown_tasks import no_tasks

# Not `__name__`: its lines are the process's.
log = get_logger("amqpworker.worker.process")


@dataclass(frozen=True, slots=True)
class QueueAssignment:
    """One queue in one process: `threads` serve it, and only it if they are its `own`."""

    queue: str
    threads: int
    own: bool
    prefetch: Prefetch
    places: Places

    @property
    def first_prefetch(self) -> int:
        """The prefetch at the start of the process."""
        return self.prefetch if isinstance(self.prefetch, int) else self.places.first_prefetch

    @property
    def idles(self) -> bool:
        """Whether some threads have nothing to do, however full the queue is."""
        return self.first_prefetch < self.threads


def queue_assignments(app: App, options: WorkerOptions) -> list[QueueAssignment]:
    """
    Return what each process consumes, in the order of the options, else by name.

    Raises ConfigError if there is no task, or if the app does not name a queue.
    """
    names = [queue.name for queue in options.queues] or sorted({task.queue for task in app.tasks.values()})
    for queue in options.queues:
        _check_known(app, queue)
    if not app.tasks:
        raise ConfigError(no_tasks(options.app, app.modules))
    return [_queue_assignment(queue, options, app) for queue in names]


def _check_known(app: App, queue: QueueOptions) -> None:
    # The app may have a queue whose name was read as a name and a number.
    whole = f"{queue.name}:{queue.threads}"
    if queue.name not in app.plan.queues and whole in app.plan.queues:
        raise ConfigError(
            f"The app has no queue {queue.name!r}, but one with the name {whole!r}: write -q {whole}: with a colon "
            f"at its end."
        )
    meant = _name_before_settings(queue.name, app.plan.queues)
    if meant and queue.name not in app.plan.queues:
        raise ConfigError(
            f"The app has no queue {queue.name!r}, but {meant!r}: settings have the form -q {meant}:THREADS,prefetch=N, or "
            f"-q {meant}:,prefetch=N without threads of its own."
        )
    app.plan.check_known(queue.name)


def _name_before_settings(text: str, known: Container[str]) -> str:
    """Return the known queue that precedes settings of a form that is not ours, such as `emails:prefetch=4`; "" without one."""
    ends = [found.start() for found in re.finditer("[:,]", text) if "=" in text[found.start() :]]
    return next((text[:end] for end in ends if text[:end] in known), "")


def _queue_assignment(queue: str, options: WorkerOptions, app: App) -> QueueAssignment:
    threads = options.threads_for(queue)
    kinds = {is_coroutine(task) for task in app.tasks.values() if task.queue == queue}
    # Coroutines of any queue share the event loop.
    coroutines = options.async_tasks if any(map(is_coroutine, app.tasks.values())) else 0
    places = Places(threads, coroutines, only_coroutines=kinds == {True})
    return QueueAssignment(queue, threads, queue in options.own_threads, options.prefetch_for(queue), places)


def long_tasks(app: App) -> list[Task[Any, Any]]:
    """Return the tasks that may run for longer than the broker waits for an acknowledgement."""
    tasks = {id(one): one for one in app.tasks.values()}.values()
    return [task for task in tasks if app.settings.ack_timeout < task.time_limit.last < math.inf]


def warn_of_long_tasks(app: App) -> None:
    """Log which tasks may run for longer than the broker waits for an acknowledgement."""
    for task in long_tasks(app):
        log.warning(
            "limit_beyond_ack_timeout",
            task=task.name,
            limit=task.time_limit.last,
            ack_timeout=app.settings.ack_timeout,
            effect="the broker redelivers its message while it still runs",
        )
