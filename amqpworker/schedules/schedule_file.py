"""
The file that `amqpworker scheduler --file` reads: schedules of tasks that the app has.

All mistakes in it are reported on one line, with the file, the schedule, the key and what is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amqpworker.errors import AmqpWorkerError, ConfigError
from amqpworker.model.toml_file import load_toml, unknown_key
from amqpworker.policies.send_options import Options
from amqpworker.schedules.definition import Schedule
from amqpworker.schedules.registry import check_schedule
from amqpworker.schedules.schedule_options import ScheduleOptions, make_schedule
from amqpworker.text import did_you_mean

if TYPE_CHECKING:
    from amqpworker.app import App

TABLE = "schedules"
OPTIONS = tuple(each.name for each in fields(ScheduleOptions))
KEYS = ("name", "task", "arguments", *OPTIONS)


def read_schedules(path: Path, app: App) -> list[Schedule]:
    """
    Return the schedules of a file.

    Raises ConfigError if it cannot be read, if something in it is wrong, or if the app has a schedule of the same name.
    """
    content = load_toml(path)
    found: dict[str, Schedule] = {}
    mistakes = [f"{key}: {unknown_key(key, [TABLE])}" for key in content if key != TABLE]
    for place, table in _tables(content, mistakes):
        wrong = list(_wrong_keys(table))
        if not wrong:
            try:
                schedule = _schedule(table, app)
                check_schedule(schedule, app, {**app.schedules, **found})
                found[schedule.name] = schedule
            except AmqpWorkerError as error:
                wrong = [str(error).removeprefix(f"Schedule {table['name']!r}: ").removesuffix(".")]
        mistakes += [f"{place}, {each}" for each in wrong]
    if mistakes:
        raise ConfigError(f"{path}: {'; '.join(mistakes)}.")
    return list(found.values())


def _tables(content: Mapping[str, Any], mistakes: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the tables of the schedules, each with the words that name it."""
    tables = content.get(TABLE, [])
    if not isinstance(tables, list) or not tables:
        mistakes.append(f"{TABLE}: write [[{TABLE}]] in two brackets, and below it name = …")
        return
    for number, table in enumerate(tables, 1):
        if not isinstance(table, dict):
            mistakes.append(f"schedule {number}: must be a table, got {table!r:.80}")
            continue
        name = table.get("name")
        yield f"schedule {name!r:.60}" if isinstance(name, str) and name else f"schedule {number}", table


def _wrong_keys(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the keys of a schedule, and with the values that no option checks."""
    for key in table:
        if key not in KEYS:
            yield f"{key}: {unknown_key(key, KEYS)}"
    for key in ("name", "task"):
        if key not in table:
            yield f"{key}: is missing"
        elif not isinstance(table[key], str):
            yield f"{key}: must be a string, got {table[key]!r:.80}"
    if not isinstance(table.get("arguments", {}), dict):
        yield f"arguments: must be a table, got {table['arguments']!r:.80}"


def _schedule(table: Mapping[str, Any], app: App) -> Schedule:
    """Return a schedule whose keys are valid; raises ConfigError or InvalidArguments if a value is not."""
    name = table["task"]
    task = app.tasks.get(name) or app.remotes.get(name)
    if task is None:
        raise ConfigError(f"task: the app has no task {name!r:.80}{did_you_mean(name, [*app.tasks, *app.remotes])}")
    message = task.build((), table.get("arguments", {}), Options())
    return make_schedule(
        table["name"], message, ScheduleOptions(**{key: table[key] for key in OPTIONS if key in table})
    )
