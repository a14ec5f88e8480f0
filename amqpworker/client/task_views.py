"""
A task with options for one message: what can be done with it then.

Decides which methods go with which options: what is for `send` only excludes `call`, and the other way round. `task` decides what
the options are, and makes the message.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from amqpworker.client.sent import Sent
from amqpworker.model.message import Message
from amqpworker.policies.foreign_names import (
    SCHEDULE_OPTIONS,
    TASK_ATTRIBUTES,
    refuses_foreign,
    unknown_attribute,
)
from amqpworker.policies.send_options import Options
from amqpworker.schedules.definition import Misfire, Overlap, Schedule

if TYPE_CHECKING:
    from amqpworker.task import RemoteTask

P = ParamSpec("P")
R = TypeVar("R")


class TaskWithOptions(Generic[P, R]):
    """What all views of a task have: the task, the options, and errors that name the methods."""

    _methods = ""
    _described = " with these options"

    def __init__(self, task: RemoteTask[P, R], options: Options) -> None:
        self._task = task
        self._options = options

    def _no_attribute(self, name: str) -> AttributeError:
        # Copying and unpickling read attributes before any is set: that must not call `__getattr__` again.
        task = vars(self).get("_task")
        known = vars(task).get("name", "?") if task is not None else "?"
        return unknown_attribute(f"Task {known!r}{self._described}", name, TASK_ATTRIBUTES, f"use {self._methods}")


class SendView(TaskWithOptions[P, R]):
    """A task with options for a message that is sent."""

    _methods = ".send(…), .asend(…), .message(…) or .schedule(…)"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in ("call", "acall"):
                raise AttributeError(f"{name}() does not accept delay, at, expires or resend", name=name)
            raise self._no_attribute(name)

    def message(self, *args: P.args, **kwargs: P.kwargs) -> Message[R]:
        """
        Return a message, validated now, to be sent later by `app.send`.

        Raises:
            InvalidArguments: the arguments do not fit the task's parameters.
        """
        return self._task.build(args, kwargs, self._options)

    def send(self, *args: P.args, **kwargs: P.kwargs) -> Sent[R]:
        """
        Send a message; returns once the broker has confirmed it.

        Raises:
            InvalidArguments: the arguments do not fit the task's parameters, or AMQP cannot carry a header.
            SendError: the broker did not confirm it in time; the class of the error shows why.
            ConfigError: its queue cannot be declared.
        """
        return self._task.app.send(self._task.build(args, kwargs, self._options))

    async def asend(self, *args: P.args, **kwargs: P.kwargs) -> Sent[R]:
        """As `send`, without blocking the event loop."""
        return await self._task.app.asend(self._task.build(args, kwargs, self._options))

    @refuses_foreign(SCHEDULE_OPTIONS)
    def schedule(  # noqa: PLR0913 - keyword options are the interface here
        self,
        name: str,
        *,
        cron: str | None = None,
        every: float | timedelta | None = None,
        tz: str = "UTC",
        start: datetime | None = None,
        end: datetime | None = None,
        jitter: float | timedelta = 0,
        overlap: Overlap = "allow",
        misfire: Misfire = "once",
        grace: float | timedelta = 60,
    ) -> Callable[P, Schedule]:
        """
        Return a function that adds a schedule to the app: it takes the arguments that the task runs with.

        `cron` has five fields and is in the time zone `tz`, `every` is seconds or a timedelta and counts from `start`, if it is
        given, otherwise from the epoch. `start` and `end` are aware datetimes, both included. Each message is delayed by up to
        `jitter` seconds. With `overlap="skip"` none is sent while the last one has no result. `misfire` ("once", "skip",
        "all") is what is sent after a gap of more than `grace` seconds without a scheduler.

        Raises:
            ConfigError: the value of an option is not valid, or the name is taken; the function raises it.
            InvalidArguments: the arguments do not fit the task's parameters; the function raises it.

        Example:
            report.schedule("weekly", cron="0 9 * * MON", tz="Europe/Paris")("sales")
        """
        from amqpworker.schedules.schedule_options import ScheduleOptions, check_scheduled, make_schedule

        given = ScheduleOptions(cron, every, tz, start, end, jitter, overlap, misfire, grace)
        unfinished = self._task.app.unfinished_schedules
        unfinished[f"{name!r:.60}"] = self._task.name

        def add(*args: P.args, **kwargs: P.kwargs) -> Schedule:
            unfinished.pop(f"{name!r:.60}", None)
            check_scheduled(name, self._options)
            schedule = make_schedule(name, self._task.build(args, kwargs, self._options), given)
            self._task.app.add_schedule(schedule)
            return schedule

        return add


class CallView(TaskWithOptions[P, R]):
    """A task with options for a message that gets a reply."""

    _methods = ".call(…) or .acall(…)"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in ("send", "asend", "message", "schedule"):
                raise AttributeError(f"{name}() does not accept timeout", name=name)
            raise self._no_attribute(name)

    def call(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """
        Run the task in a worker and return what it returned.

        Raises:
            InvalidArguments: the arguments do not fit the task's parameters.
            CallTimeout: no reply came in time.
            TaskFailed: the task ended without a result.
            MalformedReply: the reply cannot be read.
            InvalidResult: the reply does not fit the task's return hint.
            SendError: the message was not sent, or the connection was lost meanwhile.
            ConfigError: its queue cannot be declared.
        """
        message = self._task.build(args, kwargs, self._options)
        return self._task.app.call(message, timeout=self._options.timeout)

    async def acall(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """As `call`, without blocking the event loop."""
        message = self._task.build(args, kwargs, self._options)
        return await self._task.app.acall(message, timeout=self._options.timeout)


class TaskView(SendView[P, R], CallView[P, R]):
    """A task with options for either kind of message."""

    _methods = ".send(…), .asend(…), .call(…), .acall(…), .message(…) or .schedule(…)"
