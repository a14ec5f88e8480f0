"""
The file that `amqpworker worker --config` reads: several pools, of one app or several, and perhaps a scheduler.

A mistake in it is reported on one line, with the file, the key and what is wrong. It is read once: a reload brings new code,
not new options.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator

from amqpworker.errors import ConfigError
from amqpworker.model.toml_file import load_toml, unknown_key
from amqpworker.scheduler.scheduler_options import SchedulerOptions, SchedulerTable
from amqpworker.supervisor.launch import SupervisorConfig
from amqpworker.supervisor.pools import PoolSpec
from amqpworker.worker.options import Flag, LogOptions, PoolOptions, QueueOptions, WorkerOptions, repeated

SCHEDULER = "scheduler"


class PoolTable(PoolOptions):
    """One of `[[pools]]`."""

    name: str = Field(pattern=r"^[\w.-]{1,64}$")

    @field_validator("queues")
    @classmethod
    def _not_empty(cls, queues: tuple[QueueOptions, ...]) -> tuple[QueueOptions, ...]:
        # By default a pool consumes all queues of its app, which is hardly what an empty list is written for.
        if not queues:
            raise ValueError("the list is empty: name queues, or omit the key to consume all queues of the app")
        return queues


class ConfigFile(LogOptions):
    """The whole file."""

    health: Annotated[str | None, Flag("ADDRESS")] = Field(
        None, description="Serve /livez, /readyz and /status at HOST:PORT, or on a unix socket."
    )
    scheduler: SchedulerTable | None = None
    pools: tuple[PoolTable, ...] = Field((), strict=False, validate_default=True)

    @field_validator("health")
    @classmethod
    def _address(cls, health: str | None) -> str | None:
        if health is not None:
            # An HTTP server, loaded only if the option is given.
            from amqpworker.supervisor.health import check_address

            try:
                check_address(health)
            except ConfigError as error:
                raise ValueError(str(error).removeprefix(f"health {health}: ").removesuffix(".")) from None
        return health

    @field_validator("pools")
    @classmethod
    def _unique(cls, pools: tuple[PoolTable, ...], info: ValidationInfo) -> tuple[PoolTable, ...]:
        # It is missing here if something in it is wrong.
        scheduler = info.data.get(SCHEDULER, SCHEDULER)
        if not pools and scheduler is None:
            raise ValueError("there are none: write [[pools]], and below it name = …")
        names = [pool.name for pool in pools]
        if (name := repeated(names)) is not None:
            raise ValueError(f"two pools have the name {name!r}")
        if SCHEDULER in names and scheduler is not None:
            raise ValueError(f"no pool can have the name {SCHEDULER!r} beside [{SCHEDULER}]")
        return pools


def supervisor_config(given: Mapping[str, Any], cores: int) -> SupervisorConfig:
    """Return the checked options as the supervisor gets them; raises pydantic's ValidationError if one is wrong."""
    config = ConfigFile.model_validate(given)
    common = {name: getattr(config, name) for name in LogOptions.model_fields}
    pools = []
    for table in config.pools:
        own = {**dict(table), "processes": table.processes or cores}
        pools.append(pool_spec(own.pop("name"), WorkerOptions.model_validate({**own, **common})))
    if config.scheduler is not None:
        pools.append(scheduler_spec(SchedulerOptions.model_validate({**dict(config.scheduler), **common})))
    return SupervisorConfig(tuple(pools), config.health, config.log_level, config.log_json)


def pool_spec(name: str, options: WorkerOptions) -> PoolSpec:
    """Return a pool as the supervisor gets it."""
    return PoolSpec(name, options.model_dump(mode="json"), options.slots)


def scheduler_spec(options: SchedulerOptions) -> PoolSpec:
    """Return a scheduler as the supervisor gets it."""
    return PoolSpec(SCHEDULER, options.model_dump(mode="json"), slots=0, kind="scheduler")


def read_config(path: Path, app: str | None, cores: int) -> SupervisorConfig:
    """
    Return the pools of a file; raises ConfigError if it cannot be read, or something in it is wrong.

    `app` and `cores` apply to a pool that has no `app` or `processes` of its own; a scheduler without `app` has that of all pools.
    """
    content = load_toml(path)
    pools, scheduler = content.get("pools"), content.get(SCHEDULER)
    if app and isinstance(pools, list):
        content["pools"] = pools = [{"app": app, **table} if isinstance(table, dict) else table for table in pools]
    if isinstance(scheduler, dict):
        content[SCHEDULER] = {**_default_app(pools, app), **scheduler}
    try:
        return supervisor_config(content, cores)
    except ValidationError as error:
        found = "; ".join(f"{_place(wrong['loc'], content)}: {mistake(dict(wrong))}" for wrong in error.errors())
        raise ConfigError(f"{path}: {found}.") from None


def _default_app(pools: Any, app: str | None) -> dict[str, Any]:
    """Return the app of a scheduler that does not name one: that of the pools if all have the same, else `app`."""
    tables = [table for table in pools if isinstance(table, dict)] if isinstance(pools, list) else []
    same = tables and all(table.get("app") == tables[0].get("app") for table in tables)
    found = tables[0].get("app") if same else app
    return {} if found is None else {"app": found}


def _place(location: tuple[int | str, ...], content: Any) -> str:
    """Return where in a file a mistake is: pool 'mail', queue 'emails', threads."""
    parts: list[str] = []
    for step in location:
        try:
            content = content[step]
        except (KeyError, IndexError, TypeError):
            content = None
        if isinstance(step, int):
            parts[-1] = f"{parts[-1].removesuffix('s')} {_name_of(content, step)}"
        else:
            parts.append(step)
    return ", ".join(parts) or "the file"


def _name_of(entry: Any, index: int) -> str:
    name = entry.get("name") if isinstance(entry, dict) else entry
    return repr(name) if isinstance(name, str) and name else str(index + 1)


def mistake(error: Mapping[str, Any]) -> str:
    """Return what is wrong; the value of an unknown key is not shown: it can be a password."""
    location, value = error["loc"], f"{error['input']!r:.80}"
    match error["type"]:
        case "extra_forbidden":
            return _unknown_key(location)
        case "missing" if location[-1] == "app":
            return "is missing, and AMQPWORKER_APP is not set"
        case "missing":
            return "is missing"
        case "value_error":
            return str(error["ctx"]["error"])
        case "string_pattern_mismatch":
            return f"must be at most 64 letters, digits, '.', '_' and '-', got {value}"
        case "tuple_type" if location == ("pools",) and isinstance(error["input"], dict):
            return "write [[pools]] in two brackets"
        case "model_type" | "dict_type" | "model_attributes_type":
            return f"must be a table, got {value}"
    text = re.sub(r"^\w+ should", "must", error["msg"]).replace("tuple", "list")
    return f"{text}, got {value}"


def _unknown_key(location: tuple[int | str, ...]) -> str:
    models: dict[int, type[BaseModel]] = {1: ConfigFile, 2: SchedulerTable, 3: PoolTable}
    key = str(location[-1])
    if len(location) > 1 and key in ConfigFile.model_fields:
        return "belongs to the whole file: write it above the first table"
    return unknown_key(key, models.get(len(location), QueueOptions).model_fields)
