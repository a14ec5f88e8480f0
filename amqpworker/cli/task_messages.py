"""
What programs in other languages send to the tasks of an app, and get from them: bodies, headers and replies as JSON schemas.

Decides what of the wire contract is in these schemas. `cli.json_schema_document` and `cli.asyncapi_document` put them together.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, count
from typing import TYPE_CHECKING, Any, NamedTuple

from amqpworker.model.headers import VERSION, WAIT_PREFIX, header_values
from amqpworker.signature.json_schemas import Payload, payloads_of

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.task import RemoteTask

# What AsyncAPI accepts as a key; it needs no escape in a reference either.
NOT_IN_KEYS = re.compile(r"[^A-Za-z0-9._-]")
LEVELS_IN_HEADERS = rf"^{WAIT_PREFIX}([0-2][0-9]|30)$"
FAILED = {
    "type": "object",
    "properties": {
        "status": {"const": "failed"},
        "reason": {"type": "string", "description": "why, as in the header aw-dead-reason of dead letters"},
        "error_type": {"type": "string"},
        "error": {"type": "string"},
        "traceback": {"type": "string"},
    },
    "required": ["status", "reason"],
}
"""The reply of a task that failed."""


class TaskMessage(NamedTuple):
    """
    The messages of one task; `names` are all that a message may have as its `type`, the present one first.

    `key` is the name without what a reference would have to escape. `is_remote` if another program runs the task.
    """

    key: str
    names: Sequence[str]
    queue: str
    version: int
    is_remote: bool
    description: str
    payload: Payload

    @property
    def name(self) -> str:
        """The task's name."""
        return self.names[0]


class TaskMessages(NamedTuple):
    """The messages of all tasks of an app, and the classes that their schemas refer to."""

    messages: Sequence[TaskMessage]
    classes: Mapping[str, dict[str, Any]]


def messages_of(app: App, reference: str) -> TaskMessages:
    """Return the messages of the tasks and remotes of an app, by their names; `reference` is how a schema refers to a class."""
    names: dict[int, list[str]] = {}
    for name, task in app.tasks.items():
        names.setdefault(id(task), []).append(name)
    own = list({id(task): task for task in app.tasks.values()}.values())
    remote = list(app.remotes.values())
    payloads = payloads_of((task.signature for task in own), (task.signature for task in remote), reference)
    tasks: list[RemoteTask[Any, Any]] = sorted([*own, *remote], key=lambda task: task.name)
    keys = keys_of([task.name for task in tasks])
    messages = [
        TaskMessage(
            key=keys[task.name],
            names=sorted(names.get(id(task), [task.name]), key=lambda name, present=task.name: name != present),  # type: ignore[misc]
            queue=task.queue,
            version=task.version,
            is_remote=task.name in app.remotes,
            description=inspect.cleandoc(task.__doc__ or ""),
            payload=payloads.tasks[task.name],
        )
        for task in tasks
    ]
    return TaskMessages(messages, payloads.classes)


def keys_of(names: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Return a key for each name: the name as far as keys may have it, and each key once, none that is `taken`."""
    used, keys = {*taken}, {}
    for name in names:
        plain = NOT_IN_KEYS.sub("_", name)
        candidates = chain([plain], (f"{plain}_{number}" for number in count(2)))
        keys[name] = next(one for one in candidates if one not in used)
        used.add(keys[name])
    return keys


def headers_schema() -> dict[str, Any]:
    """Return the schema of the headers of any message: those of ours that a worker reads, beside which there may be others."""
    values = {
        name: {"type": ["string", "number"], "description": text.removeprefix("it ")}
        for name, text in header_values().items()
    }
    return {
        "type": "object",
        "properties": dict(sorted(values.items())),
        "patternProperties": {LEVELS_IN_HEADERS: {"description": "a level of the delay ladder; any value"}},
    }


def version_schema(version: int) -> dict[str, Any]:
    """Return what else the headers of messages for a task of this version must be."""
    if version == 1:
        return {}
    return {"type": "object", "properties": {VERSION: {"const": version}}, "required": [VERSION]}


def reply_schema(result: Mapping[str, Any], failed: str) -> dict[str, Any]:
    """Return the schema of a reply with this result; `failed` refers to the schema of the other reply."""
    done = {
        "type": "object",
        "properties": {"status": {"const": "done"}, "value": result},
        "required": ["status", "value"],
    }
    return {"oneOf": [done, {"$ref": failed}]}


def rewritten(schema: Any, *, draft_07: bool = False) -> Any:
    """
    Return one of pydantic's schemas without `discriminator`, which OpenAPI has and JSON Schema has not.

    With `draft_07` as AsyncAPI reads it: there, tuples have their items in `items`, and a discriminator is a name.
    """
    if isinstance(schema, list):
        return [rewritten(part, draft_07=draft_07) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made: dict[str, Any] = {}
    for name, part in schema.items():
        if name in ("const", "default", "enum", "examples"):
            made[name] = part
        elif name in ("properties", "patternProperties", "$defs"):
            made[name] = {key: rewritten(inner, draft_07=draft_07) for key, inner in part.items()}
        elif name == "discriminator":
            made |= {name: part["propertyName"]} if draft_07 else {}
        elif draft_07 and "prefixItems" in schema and name in ("prefixItems", "items"):
            made["items" if name == "prefixItems" else "additionalItems"] = rewritten(part, draft_07=True)
        else:
            made[name] = rewritten(part, draft_07=draft_07)
    return made
