"""
Whether a deploy is safe: what changes between the tasks of two releases, and which change can leave dead letters.

Safe is what loses nothing in any order: old messages and new ones, at old workers and at new ones (docs/deploys.md). Decides by
names, versions and schemas alone; what it cannot decide counts as unsafe.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from amqpworker.cli.task_descriptions import TaskDescription, TaskParameter

RAISE = "raise the task's version and give it an upgrade"


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a task; `kind` is one word for programs, `text` a sentence for people."""

    kind: str
    task: str
    safe: bool
    text: str

    def as_json(self) -> dict[str, Any]:
        """Return the change as an object of JSON's types."""
        return asdict(self)


def changes_between(
    old: Sequence[TaskDescription], new: Sequence[TaskDescription], queues: Collection[str] = ()
) -> list[Change]:
    """Return what the new release changes, the unsafe first; `queues` are those of the new app beside those of its tasks."""
    queues = {*queues, *(task.queue for task in new)}
    by_name = {name: task for task in new for name in task.names}
    known = {name for task in old for name in task.names}
    found: list[Change] = []
    for task in old:
        found += _lost_names(task, by_name)
        if (following := by_name.get(task.name)) is not None:
            found += _changes_of(task, following, queues)
    for task in new:
        if task.name not in known:
            renamed = [name for name in task.aliases if name in known]
            text = f"is new{f', before it was {renamed[0]!r}' if renamed else ''}: old workers let its messages wait"
            found.append(Change("task-added", task.name, True, text))
    return sorted(found, key=lambda change: (change.safe, change.task))


def _lost_names(task: TaskDescription, by_name: Collection[str]) -> Iterator[Change]:
    if task.name not in by_name:
        text = f"is gone: its messages wait ten minutes and are dead then; keep it, or give its successor aliases=[{task.name!r}]"
        yield Change("task-removed", task.name, False, text)
    for alias in task.aliases:
        if alias not in by_name:
            text = (
                f"has lost its older name {alias!r}: messages that have it, if any are left, are dead after ten minutes"
            )
            yield Change("alias-removed", task.name, False, text)


def _changes_of(old: TaskDescription, new: TaskDescription, queues: Collection[str]) -> Iterator[Change]:
    name = old.name
    if new.queue != old.queue:
        kept = old.queue in queues
        keep = f"add app.queue({old.queue!r}), and run workers with -q {old.queue} until it is empty"
        rest = "" if kept else f", and no new worker consumes {old.queue!r}: {keep}"
        yield Change("queue-changed", name, kept, f"moves from queue {old.queue!r} to {new.queue!r}{rest}")
    if new.version < old.version:
        text = f"goes from version {old.version} down to {new.version}: messages of version {old.version} are dead after ten minutes"
        yield Change("version-lowered", name, False, text)
        return
    raised = new.version > old.version
    if raised:
        how = (
            "its upgrade gets older messages"
            if new.upgrade
            else "it has no upgrade, older messages are read as they are"
        )
        text = f"goes from version {old.version} to {new.version}: {how}, old workers let newer ones wait"
        yield Change("version-raised", name, True, text)
    if old.upgrade and not new.upgrade:
        text = f"has lost its upgrade: messages of versions below {old.version}, if any are left, are read as they are; keep it"
        yield Change("upgrade-removed", name, False, text)
    if not (raised and new.upgrade):
        yield from _parameter_changes(old, new, raised)
    if new.result != old.result:
        text = "returns another type: old callers may get InvalidResult, and so may sent.result() for older results"
        yield Change("result-changed", name, True, text)


def _parameter_changes(old: TaskDescription, new: TaskDescription, raised: bool) -> Iterator[Change]:
    """Yield how parameters differ; if the version was `raised`, old workers do not run newer messages."""
    name = old.name
    left = {parameter.name: parameter for parameter in old.parameters}
    for parameter in new.parameters:
        before = next((left.pop(each) for each in (parameter.name, *parameter.aliases) if each in left), None)
        if before is not None:
            yield from _changes_of_parameter(name, before, parameter, raised)
        elif parameter.required:
            text = f"requires the parameter {parameter.name!r}, which older messages do not have: give it a default, or {RAISE}"
            yield Change("parameter-required", name, False, text)
        else:
            text = f"has a new parameter {parameter.name!r}: old workers let messages that have it wait"
            yield Change("parameter-added", name, True, text)
    for gone in left.values():
        text = f"has lost the parameter {gone.name!r}: older messages have it, and are dead after ten minutes; keep it, or {RAISE}"
        yield Change("parameter-removed", name, False, text)


def _changes_of_parameter(task: str, old: TaskParameter, new: TaskParameter, raised: bool) -> Iterator[Change]:
    if new.name != old.name:
        text = f"calls the parameter {old.name!r} {new.name!r}: old workers let messages that have it wait"
        yield Change("parameter-renamed", task, True, text)
    for alias in old.aliases:
        if alias not in (new.name, *new.aliases):
            text = (
                f"has lost the older name {alias!r} of the parameter {new.name!r}: messages that have it, if any are left, are dead "
                f"after ten minutes; keep it, or {RAISE}"
            )
            yield Change("parameter-alias-removed", task, False, text)
    if new.required and not old.required:
        text = f"requires the parameter {new.name!r}, which older messages may not have: keep its default, or {RAISE}"
        yield Change("parameter-required", task, False, text)
    if old.required and not new.required and not raised:
        text = f"may be sent without the parameter {new.name!r}, which old workers require: raise the task's version"
        yield Change("parameter-optional", task, False, text)
    if new.json_schema != old.json_schema:
        fits = widens(old.json_schema, new.json_schema)
        if not fits:
            text = f"has another type for the parameter {new.name!r}, which older messages may not fit: {RAISE}"
        elif not raised:
            text = f"takes more for the parameter {new.name!r} than old workers do: raise the task's version"
        else:
            text = f"takes more for the parameter {new.name!r}"
        yield Change("parameter-type", task, fits and raised, text)


def widens(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Return whether each value of one JSON schema certainly is one of another."""
    if not _bare(new):
        return True
    alternatives = [_bare(part) for part in _alternatives(new)]
    # Definitions are compared as a whole: an alternative may refer to any of them.
    same = all(new.get("$defs", {}).get(name) == made for name, made in old.get("$defs", {}).items())
    return same and all(_is_one_of(_bare(part), alternatives) for part in _alternatives(old))


def _alternatives(schema: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = schema.get("anyOf", [schema])
    return found


def _bare(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in schema.items() if name != "$defs"}


def _is_one_of(part: dict[str, Any], alternatives: Sequence[dict[str, Any]]) -> bool:
    return part in alternatives or (part.get("type") == "integer" and {**part, "type": "number"} in alternatives)
