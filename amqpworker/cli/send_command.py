"""
`amqpworker send` and `amqpworker call`: one message from the command line.

Decides whose word counts for a message's body and queue: the task's own signature where an app is given that knows it,
else the command line's.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from amqpworker.cli.app_session import at_work
from amqpworker.cli.output import print_error, printable, write, write_json
from amqpworker.cli.shared import AppOption, AsJson, NamespaceOption, UrlOption, app_of, quiet, standard_input
from amqpworker.cli.values import pairs
from amqpworker.errors import ConfigError, InvalidArguments, TaskFailed
from amqpworker.worker.unknown_tasks import similar_names

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.model.message import Message

__all__ = ["send_app"]

send_app = typer.Typer()

TaskName = Annotated[str, typer.Argument(metavar="TASK", help="The task's name.")]
Values = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="NAME=VALUE…",
        help="The task's parameters. What can be read as JSON is JSON, all else is text: n=3, name=Ann, tags='[1, 2]'. "
        "A parameter that --app knows as str takes 3 as text; elsewhere that is '\"3\"'.",
        show_default=False,
    ),
]
Body = Annotated[
    str | None,
    typer.Option(metavar="JSON", help="All parameters as one JSON object, in place of NAME=VALUE; - reads it."),
]
QueueName = Annotated[str | None, typer.Option("--queue", "-q", metavar="QUEUE", help="In place of the task's own.")]
Id = Annotated[str | None, typer.Option("--id", metavar="ID", help="The message's id; default: a new one.")]
Header = Annotated[list[str] | None, typer.Option("--header", metavar="NAME=VALUE", help="A header; repeatable.")]


Delay = Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="Run it no sooner than this from now.")]
At = Annotated[
    str | None, typer.Option(metavar="TIME", help="Run it no sooner: ISO 8601 with a zone, 2026-12-24T18:00+01:00.")
]
Expires = Annotated[
    float | None, typer.Option(min=0, metavar="SECONDS", help="Not started by then, it becomes a dead letter.")
]
SendTimeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0.001, metavar="SECONDS", help="How long to try; default: the app's, 15."),
]
CallTimeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0.001, metavar="SECONDS", help="How long to wait; default: the app's, 30."),
]

OPTIONS = {"headers": "header"}
"""Options of a message that the command line calls otherwise."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says about the message."""

    task: str
    values: list[str]
    body: str | None
    options: dict[str, Any]


@send_app.command(
    epilog="Examples:\n\n"
    "  amqpworker send shop.tasks.welcome user_id=42 --app shop.tasks:app\n\n"
    "  amqpworker send billing.charge order_id=o-1 -q billing --delay 60\n\n"
    '  amqpworker send shop.tasks.report --queue reports --body \'{"day": "2026-11-25"}\''
)
def send(
    task: TaskName,
    values: Values = None,
    body: Body = None,
    delay: Delay = None,
    at: At = None,
    expires: Expires = None,
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
    Send a task and print the message's id, once the broker has confirmed it.

    With --app the task's own signature checks the parameters, and its queue is taken. Without, --queue must be given.

    Exit codes: 0 confirmed, 1 the broker did not take it, 2 it could not be sent.
    """
    quiet()
    options = {**common_options(queue, id, header), "delay": delay, "at": moment(at), "expires": expires}
    bound = seconds(timeout)
    found = app_of(app, url, namespace)
    sent = message(found, Asked(task, values or [], body, options))
    with at_work(found):
        found.producer.send(sent, bound)
    if as_json:
        write_json({"id": sent.id, "task": sent.task})
    else:
        write(printable(sent.id))


@send_app.command(
    epilog="Examples:\n\n"
    "  amqpworker call shop.tasks.price sku=A-17 --app shop.tasks:app --timeout 5\n\n"
    "  amqpworker call billing.balance account=7 --queue billing"
)
def call(
    task: TaskName,
    values: Values = None,
    body: Body = None,
    timeout: CallTimeout = None,
    queue: QueueName = None,
    id: Id = None,  # noqa: A002 - the option's name
    header: Header = None,
    app: AppOption = None,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
) -> None:
    """
    Run a task in a worker and print what it returned, as JSON.

    With --app the task's own signature checks the parameters, and its queue is taken. Without, --queue must be given.

    Exit codes: 0 answered, 1 the task failed or did not answer in time, 2 it could not be called.
    """
    from amqpworker.model.reply import read

    quiet()
    bound = seconds(timeout)
    found = app_of(app, url, namespace)
    asked = message(found, Asked(task, values or [], body, common_options(queue, id, header)))
    with at_work(found):
        answer = read(found.call_raw(asked, found.call_timeout if bound is None else bound))
    if answer.status == "failed":
        report(TaskFailed(answer.reason, answer.error_type, answer.text, answer.traceback))
        raise typer.Exit(1)
    text = (answer.value or b"null").decode("utf-8", "replace")
    write(printable(text) if sys.stdout.isatty() else text)


def common_options(queue: str | None, id: str | None, header: list[str] | None) -> dict[str, Any]:  # noqa: A002
    """Return the options of a message that is sent or answered, those aside that are for sending alone."""
    headers = pairs(header, "header") if header else None
    return {"delay": None, "at": None, "expires": None, "id": id, "queue": queue, "headers": headers}


def report(failed: TaskFailed) -> None:
    """Tell how a task failed: where its code was, then the sentence."""
    if failed.traceback:
        sys.stderr.write(printable(failed.traceback.rstrip(), keep="\n\t") + "\n")
    print_error(str(failed))


def message(app: App, asked: Asked) -> Message:
    """
    Return the message, checked by the task's own signature where the app knows the task.

    Raises:
        InvalidArguments: a parameter or an option has a value that cannot be.
        ConfigError: nobody tells the queue.
    """
    known = app.tasks.get(asked.task) or app.remotes.get(asked.task)
    body = body_of(asked, known.signature.hints if known is not None else {})
    try:
        if known is None:
            return as_it_is(app, asked, body)
        given = known.signature.decode(body)
        return known.options(**asked.options).message(*given.args, **given.kwargs)  # type: ignore[no-any-return]
    except InvalidArguments as error:
        raise InvalidArguments(in_words_of_the_command(str(error))) from error


def unknown_queue(app: App, task: str) -> str:
    """Return the sentence for a task whose queue nobody tells, with the nearest names that the app has."""
    names = [*app.tasks, *app.remotes]
    if not names:
        return "Without --app nothing is known of the queue: give it by --queue."
    if found := similar_names(task, names):
        return (
            f"The app has no task {task!r}, but it has {' and '.join(map(repr, found))}: its module has another name there. "
            f"A task of another program needs --queue."
        )
    near = difflib.get_close_matches(task, names, n=3)
    told = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(sorted(names)[:10])}."
    return f"The app has no task {task!r}: {told} A task of another program needs --queue."


def as_it_is(app: App, asked: Asked, body: bytes) -> Message:
    """Return the message of a task that no app of ours describes."""
    from amqpworker.model.message import Message, new_id
    from amqpworker.policies.send_options import check_options

    options = check_options({**asked.options, "timeout": None})
    if options.queue is None:
        raise ConfigError(unknown_queue(app, asked.task))
    if len(body) > app.max_body:
        raise InvalidArguments(f"The body has {len(body)} bytes, more than the {app.max_body} of AMQPWORKER_MAX_BODY.")
    return Message(
        asked.task,
        options.queue,
        body,
        options.id or new_id(),
        options.headers,
        options.delay,
        options.at,
        options.expires,
    )


def body_of(asked: Asked, hints: Mapping[str, Any]) -> bytes:
    """Return the JSON object that holds the parameters, read by their type hints where those are known."""
    if asked.body is None:
        values = pairs(asked.values, "parameter", hints)
        try:
            return json.dumps(values, ensure_ascii=False, allow_nan=False).encode()
        except UnicodeEncodeError:
            raise InvalidArguments("A parameter is not UTF-8.") from None
        except ValueError:
            raise InvalidArguments("A parameter is a number that JSON cannot carry.") from None
    if asked.values:
        raise InvalidArguments("Give NAME=VALUE or --body, not both.")
    body = standard_input().strip() if asked.body == "-" else asked.body.encode("utf-8", "surrogateescape")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidArguments(f"--body is not JSON: {error}.") from None
    if not isinstance(found, dict):
        raise InvalidArguments("--body is not a JSON object: a task's parameters have names.")
    return body


def seconds(timeout: float | None) -> float | None:
    """Return a timeout, checked."""
    from amqpworker.policies.send_options import check_timeout

    try:
        return None if timeout is None else check_timeout(timeout)
    except InvalidArguments as error:
        raise InvalidArguments(in_words_of_the_command(str(error))) from error


def moment(text: str | None) -> datetime | None:
    """Return the time that a text means."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidArguments(f"--at {text!r} is no time of ISO 8601, such as 2026-12-24T18:00+01:00.") from None
    if found.utcoffset() is None:
        raise InvalidArguments(f"--at {text!r} has no time zone: add Z for UTC, or an offset such as +01:00.")
    return found


def in_words_of_the_command(text: str) -> str:
    """Return an error's text with `options(delay=…)` written as `--delay`."""
    return re.sub(
        r"options\(((?:\w+=…(?:, )?)+)\)",
        lambda found: ", ".join(f"--{OPTIONS.get(name, name)}" for name in re.findall(r"(\w+)=…", found[1])),
        text,
    )
