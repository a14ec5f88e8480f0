"""
What can be done with a task: run it here, send it, or call it in a worker.

Decides how a task's own parameters and the message's options become a `Message`. The types keep the two apart: `send`,
`call` and `message` take exactly the task's parameters, `options` takes everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from amqpworker.client.header_size import check_header_size
from amqpworker.client.sent import Sent
from amqpworker.client.task_views import CallView, SendView, TaskView
from amqpworker.errors import ConfigError, InvalidArguments
from amqpworker.model.headers import VERSION
from amqpworker.model.message import HeaderValue, Message
from amqpworker.policies.foreign_names import MESSAGE_OPTIONS, misplaced_option, unknown_option
from amqpworker.policies.hook_functions import HookDecorators, Hooks
from amqpworker.policies.send_options import CHECKS, Options, check_options, message_of
from amqpworker.schedules.definition import Schedule
from amqpworker.settings import Settings

if TYPE_CHECKING:
    from amqpworker.policies.task_options import TaskOptions
    from amqpworker.routing.queues import Plan
    from amqpworker.signature.signature import Signature

__all__ = [
    "AsyncTask",
    "CallView",
    "RemoteTask",
    "SendView",
    "Task",
    "TaskApp",
    "TaskDecorator",
    "TaskView",
    "check_decorated",
]

P = ParamSpec("P")
R = TypeVar("R")


class TaskApp(Protocol):
    """What tasks need of an app."""

    settings: Settings
    plan: Plan
    hooks: Hooks

    def send(self, message: Message[R]) -> Sent[R]:
        """Send a message."""

    def call(self, message: Message[R], *, timeout: float | timedelta | None = None) -> R:
        """Send a message and return the value of its reply."""

    async def asend(self, message: Message[R]) -> Sent[R]:
        """Send a message."""

    async def acall(self, message: Message[R], *, timeout: float | timedelta | None = None) -> R:
        """Send a message and return the value of its reply."""

    unfinished_schedules: dict[str, str]

    def add_schedule(self, schedule: Schedule) -> None:
        """Add a schedule."""


class RemoteTask(TaskView[P, R]):
    """A task whose code is in another program: it can be sent and called, not run."""

    _methods = ".send(…), .asend(…), .call(…), .acall(…), .schedule(…) or .options(…)"
    _described = ""

    def __init__(self, app: TaskApp, queue: str, signature: Signature, version: int = 1) -> None:
        super().__init__(self, Options())
        self.version = version
        self.app = app
        self.name = signature.name
        self.queue = queue
        self.signature = signature

    def __repr__(self) -> str:
        return f"<task {self.name} in queue {self.queue!r}>"

    def __reduce__(self) -> str:
        """Pickle by name, as a function is; a copy is the task itself."""
        return self.__qualname__

    def adopt_names(self, function: Callable[..., Any]) -> None:
        """Take the name, the module and the docstring of the function that it replaces."""
        self.__module__ = function.__module__
        self.__qualname__ = function.__qualname__
        self.__doc__ = function.__doc__

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:  # noqa: ARG002 - the task's own signature
        """Refuse: the code is in another program."""
        raise ConfigError(f"Task {self.name!r} is defined in another program: use .send(…) or .call(…).")

    @overload
    def options(
        self,
        *,
        id: str | None = None,
        queue: str | None = None,
        headers: Mapping[str, HeaderValue] | None = None,
        time_limit: float | timedelta | None = None,
        hard_limit: float | timedelta | None = None,
    ) -> TaskView[P, R]: ...

    @overload
    def options(
        self,
        *,
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        expires: float | timedelta | datetime | None = None,
        resend: bool | None = None,
        id: str | None = None,
        queue: str | None = None,
        headers: Mapping[str, HeaderValue] | None = None,
        time_limit: float | timedelta | None = None,
        hard_limit: float | timedelta | None = None,
    ) -> SendView[P, R]: ...

    @overload
    def options(
        self,
        *,
        timeout: float | timedelta,
        id: str | None = None,
        queue: str | None = None,
        headers: Mapping[str, HeaderValue] | None = None,
        time_limit: float | timedelta | None = None,
        hard_limit: float | timedelta | None = None,
    ) -> CallView[P, R]: ...

    def options(  # noqa: PLR0913 - keyword options are the interface here
        self,
        *,
        delay: float | timedelta | None = None,
        at: datetime | None = None,
        expires: float | timedelta | datetime | None = None,
        resend: bool | None = None,
        id: str | None = None,  # noqa: A002 - the word of the field
        queue: str | None = None,
        headers: Mapping[str, HeaderValue] | None = None,
        timeout: float | timedelta | None = None,
        time_limit: float | timedelta | None = None,
        hard_limit: float | timedelta | None = None,
        **foreign: object,
    ) -> Any:
        """
        Return the task with options for one message.

        `delay` and `expires` are seconds from the sending (or a timedelta), `at` and `expires` may be aware
        datetimes; `timeout` is how long `call` waits. A message that expires before it starts is dead-lettered. With
        `resend=False` a message whose confirm is lost is not published again: `Unconfirmed` is raised instead. `time_limit`
        and `hard_limit`, in seconds, take the place of the task's own for this message, in each of its runs; if only a
        `time_limit` is given, a shorter hard limit of the task does not count.

        Raises:
            InvalidArguments: the value of an option is not valid, or two options exclude each other.
            TypeError: an option does not exist; if Celery or Dramatiq has it, the text names what it is here.

        Example:
            send_welcome.options(delay=60, headers={"tenant": "acme"}).send(42)
        """
        if foreign:
            raise unknown_option(self.options, foreign, MESSAGE_OPTIONS)
        checked = check_options(
            delay=delay,
            at=at,
            expires=expires,
            id=id,
            queue=queue,
            headers=headers,
            timeout=timeout,
            resend=resend,
            time_limit=time_limit,
            hard_limit=hard_limit,
        )
        if checked.headers:
            check_header_size(checked.headers)
        if checked.timeout is not None:
            return CallView(self, checked)
        for_sending = (checked.delay, checked.at, checked.expires, checked.resend)
        return TaskView(self, checked) if for_sending == (None, None, None, None) else SendView(self, checked)

    def build(self, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Message[R]:
        """Return the message for these arguments and options; raises InvalidArguments if they do not fit or are too large."""
        try:
            body = self.signature.encode(args, kwargs)
        except InvalidArguments as error:
            if advice := misplaced_option(kwargs, self.signature.hints, {*CHECKS}):
                raise InvalidArguments(f"{error} {advice}") from error
            raise
        if self.version > 1:
            options = replace(options, headers={**options.headers, VERSION: self.version})
        return message_of(self.name, self.queue, body, options, self.app.settings.max_body)


class Task(RemoteTask[P, R], HookDecorators):
    """A task: a function that workers run, and that can still be called as it is."""

    def __init__(
        self, app: TaskApp, queue: str, function: Callable[P, R], signature: Signature, options: TaskOptions
    ) -> None:
        super().__init__(app, queue, signature, options.version)
        self.function = function
        self.policy = options.policy
        self.stores_result = options.results.stores
        self.track = options.results.tracks
        self.dedupe = options.results.dedupes
        self.result_ttl = options.results.ttl
        self.time_limit = options.time_limit
        self.isolated = options.isolated
        self.hooks = Hooks()
        self.upgrade = options.upgrade
        self.throws = options.throws
        self.__wrapped__ = function
        self.adopt_names(function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here, in this process."""
        return self.function(*args, **kwargs)


class AsyncTask(Task[P, R]):
    """For the type checker: a task that is an `async def`; run here it is awaited, and `call` returns `R`."""

    if TYPE_CHECKING:

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:  # type: ignore[override]
            """Run the function here, in this process."""


class TaskDecorator(Protocol):
    """What `app.task(…)` returns: a decorator that makes a function a task with these options."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


def check_decorated(given: object, decorator: str) -> None:
    """Check that a decorator was given a function, not an option or a task; raises ConfigError."""
    if isinstance(given, str):
        raise ConfigError(f"{decorator}({given!r:.60}): give a task's name as name={given!r:.60}.")
    if isinstance(given, RemoteTask):
        raise ConfigError(f"{decorator}(…): {given.name!r} is a task already.")
    if not callable(given) and not isinstance(given, classmethod):
        raise ConfigError(f"{decorator}({given!r:.60}): give options by name, such as {decorator}(queue='emails').")
