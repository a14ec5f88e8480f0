"""
What is used here in place of the options and attributes of Celery and Dramatiq: hints in errors about names that do not exist.

Decides the hint of each such name. For an option that is not in the tables, the error has a similar one, or all that there are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, Final, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

_BY_RETRY: Final = "use retry=[1, 5, 30] (the seconds before each retry), a number of retries, or a tenacity.Retrying"
_OWN_QUEUE: Final = "messages have no priority; give urgent ones a queue of their own (queue=…) with its own threads"
_ALWAYS: Final = "leave it out, a message is always acknowledged after its run"
_CURRENT: Final = "leave it out, current() returns what Celery passes as self"
_HOOKS: Final = "use @task.on_success, @task.on_retry and @task.on_dead"
_ARGUMENTS: Final = "the arguments of the task are those of send, as in options(…).send(…)"
_JSON: Final = "leave it out, the body of a message is always JSON"
_MODULES: Final = "use modules=[…], which workers import"
_STORE: Final = "use results=…, such as sqlite:///results.db, postgresql://… or redis://…"
_SETTINGS: Final = "use App(settings=Settings(…)), and the options of the command line"
_CRON: Final = 'use cron="30 2 * * *", which has five fields: minute, hour, day of month, month, day of week'
_OF_ITS_APP: Final = "the app that has the task decides that, in its @app.task(…)"
_OF_THE_MESSAGE: Final = "use task.options(…).schedule(…)(…), with the options of the message"
_RAISES: Final = "leave it out; result raises TaskFailed if the task failed, and status returns its state"

TASK_OPTIONS: Final[Mapping[str, str]] = {
    "bind": _CURRENT,
    "base": "there are no classes of tasks; use App(middleware=[…]), and @task.on_dead",
    "max_retries": _BY_RETRY,
    "default_retry_delay": _BY_RETRY,
    "retry_kwargs": _BY_RETRY,
    "autoretry_for": "each exception is retried; for some only, retry=Retrying(retry=retry_if_exception_type(…), …)",
    "dont_autoretry_for": "use throws=(…,)",
    "retry_when": "use retry=Retrying(retry=retry_if_exception(…), …)",
    "retry_backoff": "retry=3 waits about 1, 4 and 16 s, with jitter; or a tenacity.Retrying",
    "retry_backoff_max": "use retry=Retrying(wait=wait_exponential_jitter(max=…), …)",
    "retry_jitter": "retry=3 has jitter; or retry=Retrying(wait=wait_exponential_jitter(jitter=…), …)",
    "min_backoff": f"{_BY_RETRY}; seconds, not milliseconds",
    "max_backoff": f"{_BY_RETRY}; seconds, not milliseconds",
    "acks_late": _ALWAYS,
    "acks_on_failure_or_timeout": _ALWAYS,
    "reject_on_worker_lost": _ALWAYS,
    "ignore_result": "use result=False",
    "track_started": "use track=True",
    "store_results": "result=False stores nothing; App(results=…) names the store",
    "soft_time_limit": "use time_limit=…, in seconds; Celery's time_limit is hard_limit=…",
    "rate_limit": "use App(middleware=[…]) with a limiter that raises RetryLater(delay=…, count=False)",
    "priority": _OWN_QUEUE,
    "queue_name": "use queue=…",
    "actor_name": "use name=…",
    "routing_key": "use queue=…",
    "exchange": "use queue=…",
    "max_age": "use task.options(expires=…), in seconds",
    "expires": "use task.options(expires=…)",
    "serializer": _JSON,
    "compression": _JSON,
    "on_failure": _HOOKS,
    "on_success": _HOOKS,
    "typing": "leave it out, arguments are always checked",
    "shared": "leave it out",
    "broker": "the task belongs to the app whose decorator makes it",
}
MESSAGE_OPTIONS: Final[Mapping[str, str]] = {
    "countdown": "use delay=…, in seconds",
    "eta": "use at=…, an aware datetime",
    "priority": _OWN_QUEUE,
    "broker_priority": _OWN_QUEUE,
    "task_id": "use id=…",
    "message_id": "use id=…",
    "queue_name": "use queue=…",
    "routing_key": "use queue=…",
    "exchange": "use queue=…",
    "soft_time_limit": "use time_limit=…, in seconds; Celery's time_limit is hard_limit=…",
    "max_age": "use expires=…, in seconds",
    "args": _ARGUMENTS,
    "kwargs": _ARGUMENTS,
    "retry": "use resend=…, or the task's own @app.task(retry=…)",
    "retry_policy": "use Settings(send_timeout=…, resend=…)",
    "max_retries": "the task's own @app.task(retry=…)",
    "ignore_result": "use @app.task(result=False)",
    "link": "send the next task at the end of this one",
    "pipe_target": "send the next task at the end of this one",
    "link_error": "use @task.on_dead",
    "on_failure": _HOOKS,
    "on_success": _HOOKS,
    "reply_to": "use .call(…), which waits for the reply",
    "serializer": _JSON,
    "compression": _JSON,
}
APP_OPTIONS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("broker", "broker_url", "host"), "use url=…, such as amqp://guest:guest@localhost:5672/"),
    **dict.fromkeys(("backend", "result_backend"), _STORE),
    **dict.fromkeys(("include", "imports"), _MODULES),
    **dict.fromkeys(("config_source", "changes", "heartbeat"), _SETTINGS),
    "main": "leave it out; the name of a task is by default that of its module and function",
    "result_expires": "use App(settings=Settings(result_ttl=…)), in seconds",
    "task_default_queue": "use default_queue=…",
    "task_cls": "there are no classes of tasks; use App(middleware=[…]), and @task.on_dead",
    "beat_schedule": "use @app.schedule(…) above @app.task, or task.schedule(…)(…)",
    **dict.fromkeys(("timezone", "enable_utc"), "use tz=… of each schedule"),
    "task_always_eager": "use the fixture amqp_inline, which pytest has from amqpworker",
    "confirm_delivery": "leave it out, a message is always confirmed",
    "max_priority": _OWN_QUEUE,
    "set_as_current": "leave it out; a task belongs to the app whose decorator makes it",
}
REMOTE_OPTIONS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("queue_name", "routing_key", "exchange"), "use queue=…"),
    "actor_name": "use name=…",
    **dict.fromkeys(("max_retries", "retry", "time_limit", "hard_limit", "result", "ignore_result"), _OF_ITS_APP),
    "priority": _OWN_QUEUE,
    "serializer": _JSON,
}
SCHEDULE_OPTIONS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("crontab", "minute", "hour", "day_of_week", "day_of_month", "month_of_year"), _CRON),
    **dict.fromkeys(("schedule", "run_every"), "use cron=…, or every=…, in seconds"),
    "timezone": "use tz=…",
    "relative": "use start=…, from which every=… counts",
    **dict.fromkeys(("args", "kwargs"), "use task.schedule(…)(…), which takes the arguments of the task last"),
    **dict.fromkeys(("options", "expires", "queue", "priority", "headers"), _OF_THE_MESSAGE),
    **dict.fromkeys(("task", "sig"), "use @app.schedule(…) above @app.task, or task.schedule(…)(…)"),
    "enabled": "use the commands amqpworker schedule pause and resume",
}
RESULT_OPTIONS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("propagate", "disable_sync_subtasks"), _RAISES),
    **dict.fromkeys(("block", "interval", "no_ack"), "leave it out; result waits up to timeout=…, in seconds"),
    **dict.fromkeys(("callback", "on_message", "on_interval"), _HOOKS),
}
TASK_ATTRIBUTES: Final[Mapping[str, str]] = {
    "delay": "use .send(…)",
    "apply_async": "use .options(delay=…, at=…, expires=…, queue=…).send(…)",
    "apply": "use a call of the task itself, which runs it here",
    "s": "use .message(…), which app.send takes",
    "si": "use .message(…), which app.send takes",
    "subtask": "use .message(…), which app.send takes",
    "chunks": "use app.send_many(task.message(…) for …)",
    "map": "use app.send_many(task.message(…) for …)",
    "starmap": "use app.send_many(task.message(…) for …)",
    "retry": "raise RetryLater(delay=…)",
    "request": "use current()",
    "update_state": "use current().progress(done, total, note)",
    "send_with_options": "use .options(delay=…).send(…), with seconds instead of milliseconds",
    "message_with_options": "use .options(delay=…).message(…), with seconds instead of milliseconds",
    "fn": "use .function",
    "run": "use .function",
    "actor_name": "use .name",
    "queue_name": "use .queue",
}
SENT_ATTRIBUTES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("get", "wait", "get_result"), "use .result(timeout=…)"),
    **dict.fromkeys(("ready", "state", "successful", "failed"), "use .result(timeout=…) or .status()"),
    **dict.fromkeys(("task_id", "message_id"), "use .id"),
    "revoke": "use .cancel()",
}
APP_ATTRIBUTES: Final[Mapping[str, str]] = {
    "send_task": "use @app.remote(name=…, queue=…), and .send(…) of what it makes",
    "signature": "use @app.remote(name=…, queue=…), and .message(…) of what it makes",
    "conf": _SETTINGS,
    "config_from_object": _SETTINGS,
    "autodiscover_tasks": "use App(modules=[…])",
    "add_periodic_task": "use task.schedule(…)(…)",
    **dict.fromkeys(("on_after_configure", "on_after_finalize"), "use task.schedule(…)(…), where the task is defined"),
    **dict.fromkeys(("worker_main", "start"), "the command amqpworker worker"),
    "AsyncResult": "use app.result(id)",
    "control": "use app.queues, app.pending, sent.cancel(), and the command amqpworker status",
    "actor": "use app.task",
}
RUN_ATTRIBUTES: Final[Mapping[str, str]] = {
    "request": "use current() itself: its id, attempt, queue and headers",
    "retries": "use .attempt, which is 1 in the first run",
    "retry": "raise RetryLater(delay=…)",
    "delivery_info": "use .queue",
    "update_state": "use .progress(done, total, note)",
}


def refuses_foreign(hints: Mapping[str, str]) -> Callable[[F], F]:
    """Return a decorator: a call with a keyword that the function does not have raises the error of `unknown_option`."""

    def decorate(function: F) -> F:
        known = {*inspect.signature(function).parameters}

        @wraps(function)
        def checked(*args: Any, **options: Any) -> Any:
            if not options.keys() <= known:
                raise unknown_option(function, (name for name in options if name not in known), hints)
            return function(*args, **options)

        return cast(F, checked)

    return decorate


def unknown_option(function: Callable[..., object], given: Iterable[str], hints: Mapping[str, str]) -> TypeError:
    """Return the error about the first keyword of a call that `function` does not have."""
    name = next(iter(given))
    hint = f": {hints[name]}." if name in hints else _similar(name, _keywords_of(function))
    called = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
    return TypeError(f"{called}() has no option {name!r:.60}{hint}")


def misplaced_option(given: Iterable[str], parameters: Collection[str], options: Collection[str]) -> str:
    """Return what to do about an option of a message that is among the arguments of its task; "" if there is none."""
    for name in given:
        if name not in parameters and (name in options or name in MESSAGE_OPTIONS):
            instead = MESSAGE_OPTIONS.get(name, f"use options({name}=…)")
            return f"The options of a message are not among the arguments of its task: {instead}."
    return ""


def unknown_attribute(of: str, name: str, hints: Mapping[str, str], otherwise: str = "") -> AttributeError:
    """Return the error about an attribute of what `of` describes; `otherwise` is the hint for a name that is not in the table."""
    hint = hints.get(name, otherwise)
    reason = f"{of} has no attribute {name!r:.60}"
    return AttributeError(f"{reason}: {hint}." if hint else f"{reason}.", name=name)


def _keywords_of(function: Callable[..., object]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in parameters if one.kind in by_name and one.name not in ("self", "function")]


def _similar(name: str, known: Sequence[str]) -> str:
    import difflib  # slow to load, and seldom needed

    near = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {near[0]}=…?" if near else f"; it has {', '.join(known)}."
