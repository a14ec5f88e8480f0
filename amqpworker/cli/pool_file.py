"""
The file that `amqpworker worker --config` reads: several pools, of one app or several.

A mistake in it is reported on one line, with the file, the key and what is wrong. It is read once: a reload brings new code,
not new options.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError, field_validator

from amqpworker.errors import ConfigError
from amqpworker.model.toml_file import load_toml, unknown_key
from amqpworker.supervisor.launch import SupervisorConfig
from amqpworker.supervisor.pools import PoolSpec
from amqpworker.worker.options import Flag, LogOptions, PoolOptions, QueueOptions, WorkerOptions, repeated


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
    def _unique(cls, pools: tuple[PoolTable, ...]) -> tuple[PoolTable, ...]:
        if not pools:
            raise ValueError("there are none: write [[pools]], and below it name = …")
        if (name := repeated([pool.name for pool in pools])) is not None:
            raise ValueError(f"two pools have the name {name!r}")
        return pools


def supervisor_config(given: Mapping[str, Any], cores: int) -> SupervisorConfig:
    """Return the checked options as the supervisor gets them; raises pydantic's ValidationError if one is wrong."""
    config = ConfigFile.model_validate(given)
    common = {name: getattr(config, name) for name in LogOptions.model_fields}
    pools = []
    for table in config.pools:
        own = {**dict(table), "processes": table.processes or cores}
        pools.append(pool_spec(own.pop("name"), WorkerOptions.model_validate({**own, **common})))
    return SupervisorConfig(tuple(pools), config.health, config.log_level, config.log_json)


def pool_spec(name: str, options: WorkerOptions) -> PoolSpec:
    """Return a pool as the supervisor gets it."""
    return PoolSpec(name, options.model_dump(mode="json"), options.slots)


def read_config(path: Path, app: str | None, cores: int) -> SupervisorConfig:
    """
    Return the pools of a file; raises ConfigError if it cannot be read, or something in it is wrong.

    `app` and `cores` apply to a pool that has no `app` or `processes` of its own.
    """
    content = load_toml(path)
    pools = content.get("pools")
    if app and isinstance(pools, list):
        content["pools"] = [{"app": app, **table} if isinstance(table, dict) else table for table in pools]
    try:
        return supervisor_config(content, cores)
    except ValidationError as error:
        found = "; ".join(f"{_place(wrong['loc'], content)}: {mistake(dict(wrong))}" for wrong in error.errors())
        raise ConfigError(f"{path}: {found}.") from None


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
    models: dict[int, type[BaseModel]] = {1: ConfigFile, 3: PoolTable}
    key = str(location[-1])
    if len(location) > 1 and key in ConfigFile.model_fields:
        return "belongs to the whole file: write it above the first [[pools]]"
    return unknown_key(key, models.get(len(location), QueueOptions).model_fields)
