"""
What other programs and releases see of an app's tasks: names, queue, version, parameters, result; as `amqpworker tasks --json`.

Decides the format, and reads it. `cli.task_changes` compares two of them, but not what becomes of results and errors: that is
for people.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from amqpworker.errors import ConfigError
from amqpworker.text import name_of_class

if TYPE_CHECKING:
    from amqpworker.task import Task

# In a JSON schema: only for people.
WITHOUT_MEANING = frozenset({"title", "description", "examples", "default", "deprecated"})
# In a JSON schema: their keys are names of the user's.
NAMED = frozenset({"properties", "$defs"})


class TaskParameter(BaseModel):
    """A parameter: whether a message must have it, its older names, and its JSON schema."""

    name: str
    required: bool
    aliases: list[str] = []
    json_schema: dict[str, Any] = Field({}, alias="schema")


class TaskDescription(BaseModel):
    """
    A task; `upgrade` is whether it has one, `result` the JSON schema of what it returns.

    `result_ttl` is in seconds, null if that of the settings counts; `throws` are names of exceptions, as dead letters have them.
    """

    model_config = ConfigDict(populate_by_name=True)

    name: str
    aliases: list[str] = []
    queue: str
    version: int = 1
    upgrade: bool = False
    parameters: list[TaskParameter] = []
    result: dict[str, Any] = {}
    result_ttl: float | None = None
    track: bool = False
    dedupe: bool = False
    throws: list[str] = []

    @property
    def names(self) -> list[str]:
        """Every name by which a message may name it."""
        return [self.name, *self.aliases]

    @property
    def options(self) -> list[str]:
        """What becomes of its results and errors, as it was declared; empty if nothing was."""
        switched = [name for name in ("track", "dedupe") if getattr(self, name)]
        ttl = [] if self.result_ttl is None else [f"result_ttl={self.result_ttl:g}"]
        return [*switched, *ttl, *(f"throws={name}" for name in self.throws)]

    def as_json(self) -> dict[str, Any]:
        """Return the description as an object of JSON's types."""
        return self.model_dump(by_alias=True)


_DESCRIPTIONS = TypeAdapter(list[TaskDescription])


def descriptions_of(tasks: Mapping[str, Task[Any, Any]]) -> list[TaskDescription]:
    """Return what describes the tasks of an app, by their names."""
    names: dict[int, list[str]] = {}
    for name, task in tasks.items():
        names.setdefault(id(task), []).append(name)
    found = {id(task): task for task in tasks.values()}
    made = [_describe(task, names[key]) for key, task in found.items()]
    return sorted(made, key=lambda one: one.name)


def _describe(task: Task[Any, Any], names: Iterable[str]) -> TaskDescription:
    from amqpworker.signature.schema import json_schema_of

    signature = task.signature
    older: dict[str, list[str]] = {}
    for alias, name in signature.aliases.items():
        older.setdefault(name, []).append(alias)
    parameters = [
        TaskParameter(
            name=name,
            required=name not in signature.optional,
            aliases=older.get(name, []),
            schema=bare(json_schema_of(name, hint)),
        )
        for name, hint in signature.hints.items()
    ]
    return TaskDescription(
        name=task.name,
        aliases=[name for name in names if name != task.name],
        queue=task.queue,
        version=task.version,
        upgrade=task.upgrade is not None,
        parameters=parameters,
        result=bare(json_schema_of("result", signature.returns)),
        result_ttl=task.result_ttl,
        track=task.track,
        dedupe=task.dedupe,
        throws=[name_of_class(kind) for kind in task.throws],
    )


def bare(schema: Any) -> Any:
    """Return a JSON schema without what is only for people; one that has nothing else stays as it is."""
    if isinstance(schema, list):
        return [bare(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: part for name, part in schema.items() if name not in WITHOUT_MEANING}
    return {
        name: {key: bare(inner) for key, inner in part.items()}
        if name in NAMED and isinstance(part, dict)
        else bare(part)
        for name, part in kept.items()
    }


def read_descriptions(path: Path) -> list[TaskDescription]:
    """Return what `amqpworker tasks --json` has printed into a file; raises ConfigError if that cannot be read."""
    try:
        return _DESCRIPTIONS.validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"--diff {path}: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(
            f"--diff {path} is not what `amqpworker tasks --json` prints: {place}: {first['msg']}."
        ) from None
