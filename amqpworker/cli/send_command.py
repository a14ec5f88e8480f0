"""
`amqpworker send` and `amqpworker call`: one message from the command line.

Decides where a message's types and queue come from: from the task, if --app has it, else from the command line.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amqpworker.cli.option_times import future_time, seconds_of, seconds_or_none
from amqpworker.cli.output import write, write_json
from amqpworker.cli.shared import (
    AppOption,
    AsJson,
    NamespaceOption,
    Place,
    UrlOption,
    closing_app,
    examples,
    quiet,
    standard_input,
)
from amqpworker.cli.values import pairs
from amqpworker.errors import ConfigError, InvalidArguments, TaskFailed
from amqpworker.log.terminal import print_error, printable
from amqpworker.worker.unknown_tasks import similar_names

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.model.message import Message

send_app = typer.Typer()

TaskName = Annotated[str, typer.Argument(metavar="TASK", help="The task's name.")]
Values = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME=VALUE…",
        help="The task's parameters. A value is read as JSON if it is valid JSON, else as text: n=3, name=Ann, tags='[1, 2]'. "
        "If --app has the task, 3 is text for a str parameter; otherwise write '\"3\"'.",
        show_default=False,
    ),
]
Body = Annotated[
    str | None,
    typer.Option(
        metavar="JSON", help="All parameters as one JSON object, instead of NAME=VALUE; - reads it from standard input."
    ),
]
QueueName = Annotated[
    str | None, typer.Option("--queue", "-q", metavar="QUEUE", help="The queue.", show_default="the task's own")
]
Id = Annotated[str | None, typer.Option("--id", metavar="ID", help="The message's id.", show_default="a new UUID")]
Header = Annotated[
    list[str] | None, typer.Option("--header", metavar="NAME=VALUE", help="A header of the message; repeatable.")
]


Delay = Annotated[
    str | None, typer.Option(metavar="SECONDS", help="Do not run it before this delay is over: 90, or 5m, 2h, 30d.")
]
At = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Do not run it before this time: ISO 8601 with a time zone, such as 2026-12-24T18:00+01:00.",
    ),
]
Expires = Annotated[
    str | None,
    typer.Option(metavar="SECONDS", help="Dead-letter it if it has not started within this time: 90, or 5m, 2h, 30d."),
]
TimeLimit = Annotated[
    str | None,
    typer.Option(
        metavar="SECONDS",
        help="Raise TimeLimitExceeded in the task after this time: 90, or 5m, 2h.",
        show_default="the task's own",
    ),
]
HardLimit = Annotated[
    str | None,
    typer.Option(
        metavar="SECONDS",
        help="Abandon the task, with its worker process, after this time: 90, or 5m, 2h.",
        show_default="the task's own",
    ),
]
SendTimeout = Annotated[
    str | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        help="How long to wait for the broker.",
        show_default="the app's send_timeout",
    ),
]
CallTimeout = Annotated[
    str | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        help="How long to wait for the result.",
        show_default="the app's call_timeout",
    ),
]

ShowProgress = Annotated[
    bool,
    typer.Option("--progress", help="Show what the task reports of its progress; needs --app, with a result store."),
]


@send_app.command(
    epilog=examples(
        "amqpworker send shop.tasks.welcome user_id=42 --app shop.tasks:app",
        "amqpworker send billing.charge order_id=o-1 -q billing --delay 60",
        'amqpworker send shop.tasks.report -q reports --body \'{"day": "2026-11-25"}\'',
        "amqpworker send shop.tasks.clean -q slow --time-limit 10m --hard-limit 15m",
    )
)
def send(
    context: typer.Context,
    task: TaskName,
    values: Values = None,
    body: Body = None,
    delay: Delay = None,
    at: At = None,
    expires: Expires = None,
    time_limit: TimeLimit = None,
    hard_limit: HardLimit = None,
    timeout: SendTimeout = None,
    queue: QueueName = None,
    id: Id = None,  # noqa: A002 - the option's name
    header: Header = None,
    app: AppOption = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: AsJson = False,
) -> None:
    """
    Send a task; print its id once the broker has confirmed it.

    With --app, the task checks the parameters and names the queue. Without --app, --queue is required.

    Exit codes: 0 confirmed, 1 the broker did not confirm it, 2 it could not be sent.
    """
    quiet()
    options = {
        **_common_options(queue, id, header, time_limit, hard_limit),
        "delay": seconds_or_none(delay, "--delay"),
        "at": future_time(at, "--at", "To run it now, leave out --at."),
        "expires": seconds_or_none(expires, "--expires"),
    }
    checked_timeout = _timeout_of(timeout)
    found = Place.of(context, app, url, namespace).open()
    sent = message(found, task, values or [], body, options)
    with closing_app(found):
        found.producer.send(sent, checked_timeout)
        if (on_sent := found.origin(sent.task).on_sent) is not None:
            on_sent(sent)
    if as_json:
        write_json({"id": sent.id, "task": sent.task})
    else:
        write(printable(sent.id))


@send_app.command(
    epilog=examples(
        "amqpworker call shop.tasks.price sku=A-17 --app shop.tasks:app --timeout 5",
        "amqpworker call billing.balance account=7 --queue billing --time-limit 30",
        "amqpworker call shop.tasks.import_all --app shop.tasks:app --progress",
    )
)
def call(
    context: typer.Context,
    task: TaskName,
    values: Values = None,
    body: Body = None,
    time_limit: TimeLimit = None,
    hard_limit: HardLimit = None,
    timeout: CallTimeout = None,
    queue: QueueName = None,
    id: Id = None,  # noqa: A002 - the option's name
    header: Header = None,
    app: AppOption = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    progress: ShowProgress = False,
) -> None:
    """
    Run a task in a worker and print its result as JSON.

    With --app, the task checks the parameters and names the queue. Without --app, --queue is required.

    Exit codes: 0 the task succeeded, 1 it failed or did not reply in time, 2 it could not be called.
    """
    from amqpworker.cli.call_progress import showing_progress
    from amqpworker.model.reply import decode_reply

    quiet()
    checked_timeout = _timeout_of(timeout)
    found = Place.of(context, app, url, namespace).open()
    options = _common_options(queue, id, header, time_limit, hard_limit)
    sent = message(found, task, values or [], body, options)
    with closing_app(found), showing_progress(found, sent) if progress else nullcontext():
        reply = decode_reply(
            found.producer.call(sent, found.settings.call_timeout if checked_timeout is None else checked_timeout)
        )
    if reply.status == "failed":
        _print_failure(TaskFailed(reply.reason, reply.error_type, reply.text, reply.traceback))
        raise typer.Exit(1)
    text = (reply.value or b"null").decode("utf-8", "replace")
    write(printable(text) if sys.stdout.isatty() else text)


def _common_options(
    queue: str | None,
    id: str | None,  # noqa: A002 - the option's name
    header: list[str] | None,
    time_limit: str | None,
    hard_limit: str | None,
) -> dict[str, Any]:
    return {
        "id": id,
        "queue": queue,
        "headers": pairs(header, "header") if header else None,
        "time_limit": seconds_or_none(time_limit, "--time-limit"),
        "hard_limit": seconds_or_none(hard_limit, "--hard-limit"),
    }


def _print_failure(failed: TaskFailed) -> None:
    if failed.traceback:
        sys.stderr.write(printable(failed.traceback.rstrip(), keep="\n\t") + "\n")
    print_error(str(failed))


def message(app: App, name: str, values: list[str], body: str | None, options: dict[str, Any]) -> Message:
    """Return the message, checked by the task if the app has it; raises ConfigError if the queue is not known."""
    from amqpworker.policies.send_options import check_options, message_of

    task = app.tasks.get(name) or app.remotes.get(name)
    content = _body_of(values, body, task.signature.hints if task is not None else {})
    if task is not None:
        found = task.signature.decode(content)
        return task.options(**options).message(*found.args, **found.kwargs)  # type: ignore[no-any-return]
    checked = check_options(**options)
    if checked.queue is None:
        raise ConfigError(_unknown_queue(app, name))
    return message_of(name, checked.queue, content, checked, app.settings.max_body)


def _unknown_queue(app: App, task: str) -> str:
    """Return the error for a task whose queue is not known, with the nearest names that the app has."""
    names = [*app.tasks, *app.remotes]
    if not names:
        return "The task's queue is not known: add --queue, or --app with an app that has the task."
    if found := similar_names(task, names):
        return (
            f"The app has no task {task!r}, but it has {' and '.join(map(repr, found))}: its module has another name there. "
            f"A task of another program needs --queue."
        )
    near = difflib.get_close_matches(task, names, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(sorted(names)[:10])}."
    return f"The app has no task {task!r}: {hint} A task of another program needs --queue."


def _body_of(values: list[str], given: str | None, hints: Mapping[str, Any]) -> bytes:
    """Return the JSON object of the parameters; NAME=VALUE is read by the type hints, if those are known."""
    if given is None:
        parameters = pairs(values, "parameter", hints)
        try:
            return json.dumps(parameters, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError:
            raise InvalidArguments("A parameter is not UTF-8.") from None
        except ValueError:
            raise InvalidArguments("A parameter is a number that JSON does not have.") from None
    if values:
        raise InvalidArguments("Use NAME=VALUE or --body, not both.")
    body = standard_input().strip() if given == "-" else given.encode("utf-8", "surrogateescape")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidArguments(f"--body is not JSON: {error}.") from None
    if not isinstance(found, dict):
        raise InvalidArguments("--body must be a JSON object, with a key per parameter.")
    return body


def _timeout_of(timeout: str | None) -> float | None:
    from amqpworker.policies.send_options import check_timeout

    return None if timeout is None else check_timeout(seconds_of(timeout, "--timeout"))
