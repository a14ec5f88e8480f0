"""
Pause and resume queues and tasks in all worker processes.

Decides which names are valid: those of the app, so that a typo is an error, and for `resume` whatever is paused.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from amqpworker.client.event_loop_warning import warn_in_event_loop
from amqpworker.client.pause_writer import PauseWriter
from amqpworker.errors import ConfigError
from amqpworker.model.headers import now_text
from amqpworker.model.message import plain
from amqpworker.model.paused import Change, Kind, Paused
from amqpworker.text import did_you_mean

if TYPE_CHECKING:
    from amqpworker.routing.queues import Plan


class PausableApp(Protocol):
    """What `app.queues` needs of an app."""

    plan: Plan

    @property
    def tasks(self) -> Mapping[str, Any]:
        """Its tasks by name, also by older names."""

    @property
    def remotes(self) -> Mapping[str, Any]:
        """The tasks of other programs that it sends to, by name."""


class QueueControl:
    """
    Pauses and resumes queues and tasks, in every worker process, and those that start later, until they are resumed.

    Each method returns once the broker has the change, and workers follow within a second or so. It blocks: in an event loop, call
    it in a thread.

    Raises:
        ConfigError: the app has no such queue or task, or the stream of pauses does not exist or cannot be read.
        SendError: the change was not confirmed in time; `Unconfirmed` if it may be in effect.
    """

    def __init__(self, app: PausableApp, writer: PauseWriter) -> None:
        self._app = app
        self._writer = writer

    @property
    def stream_was_empty(self) -> bool:
        """Whether the stream had no entry when a method of this object last read it: nothing ever was paused, or it was deleted."""
        return self._writer.was_empty

    def pause(self, name: str) -> bool:
        """
        Pause a queue: nothing of it starts, and what runs continues. Its messages stay in it; calls to it time out.

        Returns false if it was paused already.
        """
        return self._pause("queue", self._queue(name))

    def resume(self, name: str) -> bool:
        """Resume a queue. Returns false if it was not paused."""
        return self._resume("queue", name)

    def pause_task(self, name: str) -> bool:
        """
        Pause a task: none starts, and what runs continues. Its messages wait in steps of 64 s outside of their queue.

        They count no attempt, and expire as they do in a queue; calls time out. Returns false if it was paused already.
        """
        return self._pause("task", self._task(name))

    def resume_task(self, name: str) -> bool:
        """Resume a task, whose messages start within 64 s. Returns false if it was not paused."""
        return self._resume("task", name)

    def paused(self) -> Paused:
        """Return the queues and tasks that are paused, each with the time since when (ISO 8601, in UTC)."""
        warn_in_event_loop("app.queues.paused", has_counterpart=False)
        return self._writer.read()

    def _pause(self, kind: Kind, name: str) -> bool:
        warn_in_event_loop("app.queues.pause", has_counterpart=False)
        return self._writer.write(Change("pause", kind, name, now_text(time.time())))

    def _resume(self, kind: Kind, name: str) -> bool:
        warn_in_event_loop("app.queues.resume", has_counterpart=False)
        try:
            known = self._queue(name) if kind == "queue" else self._task(name)
        except ConfigError:
            # Perhaps the app had it when it was paused.
            if name not in self._writer.read().of(kind):
                raise
            known = name
        return self._writer.write(Change("resume", kind, known, now_text(time.time())))

    def _queue(self, name: str) -> str:
        self._app.plan.check_known(plain(name))
        return plain(name)  # type: ignore[no-any-return]

    def _task(self, name: str) -> str:
        known: Mapping[str, Any] = {**self._app.tasks, **self._app.remotes}
        task = known.get(plain(name))
        if task is None:
            raise ConfigError(f"The app has no task {name!r}{did_you_mean(str(name), known)}.")
        return str(task.name)
