"""A message that a test has sent, as a value, and which messages a test asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amqpworker.errors import ConfigError, InvalidArguments
from amqpworker.model.headers import ETA, EXPIRES, FIRST_SENT, time_of
from amqpworker.routing.envelope import user_headers
from amqpworker.task import RemoteTask
from amqpworker.text import did_you_mean

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.model.message import Headers, Publication


@dataclass(frozen=True, slots=True, kw_only=True)
class SentMessage:
    """
    A message that was sent.

    `arguments` are those of the call, by name, in the types of the task's hints. `delay` is the seconds until it is due, 0 if it
    has none; `expires` is how many seconds after its sending it expires, None if it does not. `headers` are the sender's own.
    """

    id: str
    task: str
    queue: str
    arguments: Mapping[str, Any]
    headers: Headers
    delay: float
    expires: float | None
    is_call: bool


def sent_message(publication: Publication, app: App) -> SentMessage:
    """Return a publication as the message that was sent."""
    properties = publication.properties
    headers = properties.headers or {}
    return SentMessage(
        id=properties.message_id or "",
        task=properties.type or "",
        queue=publication.routing_key,
        arguments=_arguments(publication, app),
        headers=user_headers(headers),
        delay=_seconds_after(headers, ETA) or 0.0,
        expires=_seconds_after(headers, EXPIRES),
        is_call=properties.reply_to is not None,
    )


def _seconds_after(headers: Headers, name: str) -> float | None:
    moment, sent = time_of(headers.get(name)), time_of(headers.get(FIRST_SENT))
    return None if moment is None or sent is None else max(0.0, (moment - sent) / 1000)


def _arguments(publication: Publication, app: App) -> Mapping[str, Any]:
    name = publication.properties.type or ""
    task = app.tasks.get(name) or app.remotes.get(name)
    if task is None:
        from pydantic_core import from_json

        found: Any = from_json(publication.body)  # of a task that the app does not have
        return found if isinstance(found, dict) else {}
    try:
        return task.signature.arguments(publication.body)
    except InvalidArguments:
        return {}


def name_of_task(task: RemoteTask[..., Any] | str, app: App) -> str:
    """Return the name of a task, given by itself or by its name; raises ConfigError if the app does not have it."""
    known = {*app.tasks, *app.remotes}
    if isinstance(task, RemoteTask):
        if task.name in known:
            return task.name
        raise ConfigError(f"Task {task.name!r} is not one of the app that these tests run.")
    if task not in known:
        raise ConfigError(f"The app has no task {task!r}{did_you_mean(str(task), known)}.")
    found = app.tasks.get(task)
    # a task is also found by its earlier names, which its messages do not have
    return task if found is None else found.name


def check_parameters(task: str, names: Mapping[str, Any], app: App) -> None:
    """Raise ConfigError if a task does not have parameters with these names."""
    found = app.tasks.get(task) or app.remotes.get(task)
    assert found is not None
    for name in names:
        if name not in found.signature.hints:
            known = did_you_mean(name, found.signature.hints)
            raise ConfigError(f"Task {task!r} has no parameter {name!r}{known}.")
