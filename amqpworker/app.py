"""
The app: its tasks, its queues, and the one place to send from.

Decides the names of tasks, and refuses a name that is taken. Making an `App` opens no connection and starts no thread.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeAlias, TypeVar, overload

from amqpworker.broker.address import addresses
from amqpworker.broker.publisher import Publisher
from amqpworker.client.app_modules import imported
from amqpworker.client.app_parts import AppParts
from amqpworker.client.app_users import AppUsers
from amqpworker.client.async_app import AsyncApp
from amqpworker.client.operated_app import OperatedApp
from amqpworker.client.producer import Producer
from amqpworker.client.results_app import ResultsApp
from amqpworker.client.sent import Origin, Sent, due_of, value_of
from amqpworker.errors import ConfigError
from amqpworker.log.redaction import redact_url
from amqpworker.model.message import MAX_SHORT_BYTES, Message, fits_short_string, plain
from amqpworker.model.reply import decode_reply
from amqpworker.policies.expected_errors import ThrowsSpec, expected_errors
from amqpworker.policies.foreign_names import (
    APP_ATTRIBUTES,
    APP_OPTIONS,
    REMOTE_OPTIONS,
    TASK_OPTIONS,
    refuses_foreign,
    unknown_attribute,
    unknown_option,
)
from amqpworker.policies.hook_functions import HookDecorators, Hooks
from amqpworker.policies.result_options import result_options
from amqpworker.policies.retry import DEFAULT, PolicySpec, policy
from amqpworker.policies.task_options import TaskOptions
from amqpworker.policies.time_limit import LimitSpec, time_limit_of
from amqpworker.results.store import open_store
from amqpworker.routing.queues import Plan
from amqpworker.routing.topology import DEFAULT_NAMESPACE, check_namespace
from amqpworker.schedules.registry import AppSchedules
from amqpworker.settings import Settings, broker_url
from amqpworker.signature.signature import Signature
from amqpworker.signature.task_names import default_name, names_of
from amqpworker.signature.versions import Upgrade, check_version
from amqpworker.task import (
    AsyncTask,
    RemoteTask,
    Task,
    TaskDecorator,
    check_decorated,
)

if TYPE_CHECKING:
    from amqpworker.worker.middleware import Middleware

Context: TypeAlias = AbstractContextManager[Any] | AbstractAsyncContextManager[Any]

P = ParamSpec("P")
R = TypeVar("R")


class App(AsyncApp, ResultsApp, OperatedApp, AppSchedules, HookDecorators):
    """
    Tasks on RabbitMQ.

    `url` is one AMQP URL, or several separated by commas; without it `AMQPWORKER_URL` is read, then the systemd
    credential `amqpworker_url`. `results` is the URL of a store. `modules` are imported by workers. `lifespan` returns a
    context manager, asynchronous or not, that each worker process enters before its first task and leaves after its last.
    `middleware` are called with each `Run` and return context managers, which workers enter around it, the first outermost.

    Raises:
        ConfigError: the value of one of them, or of a setting in the environment, is not valid.

    Example:
        app = App("amqp://guest:guest@localhost:5672/", results="sqlite:///results.db")

        @app.task(queue="emails")
        def send_welcome(user_id: int, lang: str = "en") -> str: ...
    """

    @refuses_foreign(APP_OPTIONS)
    def __init__(  # noqa: PLR0913 - keyword options are the interface here
        self,
        url: str | None = None,
        *,
        results: str | None = None,
        namespace: str = DEFAULT_NAMESPACE,
        default_queue: str = "default",
        modules: Sequence[str] = (),
        settings: Settings | None = None,
        lifespan: Callable[[], Context] | None = None,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        if isinstance(modules, str):
            raise ConfigError(f"App(modules={modules!r}): give a list of module names, such as [{modules!r}].")
        if callable(middleware) or not all(map(callable, middleware)):
            raise ConfigError("App(middleware=…): give a list of callables, each of which returns a context manager.")
        check_namespace(namespace)
        if results is not None:
            open_store(results, namespace)  # connects at its first use
        self.settings = settings if settings is not None else Settings()
        if not isinstance(url, str | None):
            raise ConfigError(f"App(url=…): it must be a string, got {url!r:.60}.")
        self.url = broker_url(url)
        self._addresses = addresses(self.url)
        self.plan = Plan(plain(namespace), self.settings.declare)
        self.default_queue = plain(default_queue)
        self.modules = tuple(modules)
        self.results = results
        self.lifespan = lifespan
        self.middleware = tuple(middleware)
        self.hooks = Hooks()
        self.tasks: dict[str, Task[Any, Any]] = {}
        self.remotes: dict[str, RemoteTask[Any, Any]] = {}
        self.schedules, self.unfinished_schedules = {}, {}
        self._producer = Producer(self.plan, self.settings, partial(Publisher, self._addresses, self.settings))
        self._async_made = {}
        self._origins, self._stored_results = {}, {}
        self.users = AppUsers()
        self._no_broker = ""

    def __repr__(self) -> str:
        return f"<App {redact_url(self.url)}, {len(set(self.tasks.values()))} tasks in {len(self.plan.queues)} queues>"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise unknown_attribute("App", name, APP_ATTRIBUTES)

    def __enter__(self) -> Self:
        self.users.enter()
        return self

    def __exit__(self, *_: object) -> None:
        if self.users.leave():
            self._close(lambda: True)

    def close(self) -> None:
        """
        Wait up to `send_timeout` for messages that are not confirmed yet, then close the connection and the result store.

        A later use opens them again. Connections of event loops are closed without waiting for them here. Calls that wait for
        their replies end with `Unconfirmed`. While other threads are inside `with app:`, the last of them closes the app, after
        its calls have ended; in a worker process the worker does: a task that closes the app closes nothing.
        """
        if not self.users.has_others:
            # A thread that enters at this moment keeps its calls too.
            self._close(lambda: self.users.has_others)

    def _close(self, spares_calls: Callable[[], bool]) -> None:
        if not spares_calls():
            for made in self._async_made.values():
                made.carriers.close_all()
        try:
            self._producer.close(self.settings.send_timeout, spares_calls)
        finally:
            self._close_results()

    # ---- tasks and queues -------------------------------------------------------------------------------------------

    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self,
        *,
        name: str | None = None,
        queue: str | None = None,
        retry: PolicySpec = DEFAULT,
        aliases: Sequence[str] = (),
        result: bool = True,
        time_limit: LimitSpec = None,
        hard_limit: LimitSpec = None,
        isolated: bool = False,
        inject: Sequence[str] = (),
        version: int = 1,
        upgrade: Upgrade | None = None,
        throws: ThrowsSpec = (),
        track: bool = False,
        dedupe: bool = False,
        result_ttl: float | timedelta | None = None,
    ) -> TaskDecorator: ...

    def task(  # noqa: PLR0913 - keyword options are the interface here
        self,
        function: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        queue: str | None = None,
        retry: PolicySpec = DEFAULT,
        aliases: Sequence[str] = (),
        result: bool = True,
        time_limit: LimitSpec = None,
        hard_limit: LimitSpec = None,
        isolated: bool = False,
        inject: Sequence[str] = (),
        version: int = 1,
        upgrade: Upgrade | None = None,
        throws: ThrowsSpec = (),
        track: bool = False,
        dedupe: bool = False,
        result_ttl: float | timedelta | None = None,
        **foreign: object,
    ) -> Any:
        """
        Make a function a task.

        `name` is by default `module.function`; `aliases` are its earlier names. `retry` is a
        `tenacity.Retrying`, a number of retries, a list of waits in seconds, or `None`. `result=False` stores nothing.
        After `time_limit` seconds `TimeLimitExceeded` is raised in the task, where it can be caught; after `hard_limit`
        seconds the task is abandoned together with its worker process, and its retry policy decides what follows. A task
        that is `isolated` runs in a child process of the worker: its crash or hard limit ends only that child. `inject`
        names parameters that a decorator of the function passes to it: they are not part of a message. `version` numbers the
        task's parameters: raise it if older messages do not fit any more. `upgrade` gets the version and the arguments of an
        older message, as JSON has them, and returns the arguments of this version (docs/deploys.md). `throws` names exceptions
        that are expected: they and their subclasses are not retried, and their dead letter is logged at info.
        With `track`, `status()` also shows that a message was sent, and that its task runs. With `dedupe`, which needs a result
        store, a message whose id is done there does not run (docs/guarantees.md). Results are kept for `result_ttl` seconds.

        A task may run more than once: make it idempotent. If it runs longer than the broker's ack timeout, 30 minutes, its
        message is redelivered while it still runs (docs/guarantees.md).

        Raises:
            ConfigError: the name is taken or is in `__main__`, a parameter cannot be carried as JSON, the queue name is not
                valid, `aliases` is not a list, `retry` is not a policy, a limit is not a duration, `inject` names what is not a
                parameter, `throws` is not a tuple of exceptions, `version`, `upgrade` or `result_ttl` is not valid, or
                `result=False` excludes another option.
            TypeError: an option does not exist; if Celery or Dramatiq has it, the text names what it is here.

        Example:
            @app.task(queue="emails", retry=[1, 5, 30])
            def send_welcome(user_id: int) -> str: ...
        """
        if foreign:
            raise unknown_option(self.task, foreign, TASK_OPTIONS)
        limit, checked_version = time_limit_of(time_limit, hard_limit), check_version(version, upgrade)
        results = result_options(result, track, dedupe, result_ttl)
        options = TaskOptions(
            policy(retry), results, limit, isolated, checked_version, upgrade, expected_errors(throws)
        )
        names = (name, *names_of("aliases", aliases))
        register = partial(self._register, names, queue, names_of("inject", inject), options)
        return register if function is None else register(function)

    def _register(
        self,
        names: tuple[str | None, ...],
        queue: str | None,
        injected: tuple[str, ...],
        options: TaskOptions,
        function: Callable[..., Any],
    ) -> Task[..., Any]:
        """Add a task, whose first name is its own; `None` is the default one."""
        check_decorated(function, "task")
        task_name = plain(names[0]) if names[0] is not None else default_name(function)
        task_queue = plain(queue) if queue is not None else self.default_queue
        signature = Signature.of(function, task_name, injected)
        task: Task[..., Any] = Task(self, task_queue, function, signature, options)
        all_names = (task_name, *map(plain, names[1:]))
        for each in all_names:
            self._check_name(each)
        self.plan.add_queue(task_queue)
        self.tasks.update(dict.fromkeys(all_names, task))
        return task

    @refuses_foreign(REMOTE_OPTIONS)
    def remote(
        self, *, name: str, queue: str | None = None, version: int = 1
    ) -> Callable[[Callable[P, R]], RemoteTask[P, R]]:
        """
        Describe a task of another program, by a function whose body is never run; `version` is that of its parameters.

        Raises:
            ConfigError: the name is taken, a parameter cannot be carried as JSON, the queue name or the version is not valid.

        Example:
            @app.remote(name="billing.charge", queue="billing")
            def charge(order_id: str, cents: int) -> str:
                raise NotImplementedError  # mypy does not accept `...` if something is returned
        """
        checked_version = check_version(version)

        def register(function: Callable[P, R]) -> RemoteTask[P, R]:
            check_decorated(function, "remote")
            task_name = plain(name)
            task_queue = plain(queue) if queue is not None else self.default_queue
            task: RemoteTask[P, R] = RemoteTask(self, task_queue, Signature.of(function, task_name), checked_version)
            task.adopt_names(function)
            self._check_name(task_name)
            self.plan.add_queue(task_queue)
            self.remotes[task_name] = task
            return task

        return register

    def queue(self, name: str, *, max_length: int | None = None, declare: bool | None = None) -> str:
        """
        State more about a queue than its name, or add one that no task names; return its name.

        With `max_length`, about that many messages may wait in it: to send more raises `QueueFull`. What was accepted, delayed
        messages and retries too, never meets the bound (docs/topology.md). With `declare=False` the queue is left to another
        app, which declares it with the same bound; `None` does as the setting `declare`. The bound of a queue that exists
        cannot be changed.

        Raises:
            ConfigError: the name or bound is not valid, or the app has stated something else about the queue before.

        Example:
            app.queue("reports", max_length=10_000)
        """
        self.plan.add_queue(plain(name), max_length, declare)
        return plain(name)  # type: ignore[no-any-return]

    def _check_name(self, name: str) -> None:
        if not fits_short_string(name):
            raise ConfigError(f"Task name must be a string of 1 to {MAX_SHORT_BYTES} bytes of UTF-8, got {name!r:.60}.")
        if name in self.tasks or name in self.remotes:
            raise ConfigError(f"Two tasks of one app have the name {name!r}: give one of them another name=….")

    def load(self) -> None:
        """Import the modules that hold tasks, as a worker does; raises ConfigError if that is not possible."""
        for module in self.modules:
            imported(module, f"App(modules=…) names {module!r}, which does not exist")

    # ---- its parts --------------------------------------------------------------------------------------------------

    @property
    def producer(self) -> Producer:
        """The sending side, which workers share."""
        return self._producer

    def exchange_parts(self, parts: AppParts) -> AppParts:
        """Send and store by other parts from now on, and return the former ones: for tests, while no thread uses the app."""
        sending = (self.url, self._addresses, self._producer, self._async_made)
        former = AppParts(*sending, self.results, self._stored_results, self._no_broker)
        self.url, self._addresses, self._producer, self._async_made = parts[:4]
        self.results, self._stored_results, self._no_broker = parts[4:]
        return former

    def _sent(self, message: Message[R]) -> Sent[R]:
        """Return what `send` returns for a message."""
        due = None if message.delay is None and message.at is None else due_of(message, self._producer.now())
        origin = self.origin(message.task)
        if origin.on_sent is not None:
            origin.on_sent(message)
        return Sent(message.id, message.task, origin, message.first_sent, due)

    def _value_of_reply(self, message: Message[R], body: bytes) -> R:
        """Return the value of the reply to a message."""
        origin: Origin[R] = self.origin(message.task)
        return value_of(decode_reply(body), origin.decode)
