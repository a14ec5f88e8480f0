"""
The file that `amqpworker worker --config` reads: several pools, of one app or several.

Decides what it may hold, the defaults, and how a mistake in it is told: in one line with the file, the key and what is
wrong. It is read once: a reload brings new code, not new numbers.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from amqpworker.errors import ConfigError
from amqpworker.supervisor.launch import SupervisorConfig
from amqpworker.supervisor.pools import MOST_HOURS, STALL_TIMEOUT, START_TIMEOUT, PoolSpec, Recycling
from amqpworker.worker.options import PoolOptions, QueueOptions, WorkerOptions, repeated

__all__ = ["pool_of", "read_config", "recycling_of"]

SECONDS_IN_HOUR = 3600
MIB = 1024 * 1024


class PoolTable(PoolOptions):
    """One of `[[pools]]`; `max_memory` is MiB."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(pattern=r"^[\w.-]{1,64}$")
    app: str | None = None
    processes: int | None = Field(None, ge=1, le=1000)
    max_tasks: int | None = Field(None, ge=1)
    max_hours: float | None = Field(None, ge=0.001, le=MOST_HOURS, allow_inf_nan=False)
    max_memory: int | None = Field(None, ge=1)
    stall_timeout: float = Field(STALL_TIMEOUT, ge=1, allow_inf_nan=False)
    start_timeout: float = Field(START_TIMEOUT, ge=1, allow_inf_nan=False)

    @field_validator("queues")
    @classmethod
    def _some(cls, queues: tuple[QueueOptions, ...]) -> tuple[QueueOptions, ...]:
        # None at all stands for all of the app: whoever writes an empty list has something else in mind.
        if not queues:
            raise ValueError("there is none: name some, or leave the key out for all of the app")
        return queues


class ConfigFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    health: str | None = None
    log_level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    log_json: bool | None = None
    pools: tuple[PoolTable, ...] = Field((), strict=False, validate_default=True)

    @field_validator("health")
    @classmethod
    def _an_address(cls, health: str | None) -> str | None:
        if health is not None:
            # A server of HTTP, loaded where somebody wants one.
            from amqpworker.supervisor.health import check_address

            try:
                check_address(health)
            except ConfigError as error:
                raise ValueError(str(error).removeprefix(f"health {health}: ").removesuffix(".")) from None
        return health

    @field_validator("pools")
    @classmethod
    def _some_and_each_once(cls, pools: tuple[PoolTable, ...]) -> tuple[PoolTable, ...]:
        names = [pool.name for pool in pools]
        if not names:
            raise ValueError("there is none: write [[pools]], and below it name = …")
        if (twice := repeated(names)) is not None:
            raise ValueError(f"there are two pools with the name {twice!r}")
        return pools


def read_config(path: Path, app: str | None, processes: int) -> SupervisorConfig:
    """
    Return what a file says; a pool that does not say it has this `app` and so many `processes`.

    Raises:
        ConfigError: the file cannot be read, or something in it cannot be.
    """
    held = loaded(path)
    try:
        config = ConfigFile.model_validate(held)
    except ValidationError as error:
        raise ConfigError(f"{path}: {mistakes(error, held)}.") from None
    return SupervisorConfig(
        tuple(spec_of(table, config, app_of(path, table, app), processes) for table in config.pools),
        config.health,
        config.log_level,
        config.log_json,
    )


def loaded(path: Path) -> dict[str, Any]:
    """
    Return a TOML file as it is.

    Raises:
        ConfigError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ConfigError(f"{path}: it cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: it is no TOML: it is not in UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: it is no TOML: {error}.") from None


def app_of(path: Path, table: PoolTable, app: str | None) -> str:
    """Return the app of a pool: its own, else the one of the environment."""
    if found := table.app or app:
        return found
    raise ConfigError(f"{path}: pool {table.name!r}, app: it is missing, and AMQPWORKER_APP is not set either.")


def spec_of(table: PoolTable, config: ConfigFile, app: str, processes: int) -> PoolSpec:
    """Return a pool of the file as the supervisor wants it."""
    options = WorkerOptions(
        app=app,
        stall_timeout=table.stall_timeout,
        start_timeout=table.start_timeout,
        log_level=config.log_level,
        log_json=config.log_json,
        **{name: getattr(table, name) for name in PoolOptions.model_fields},
    )
    recycling = recycling_of(table.max_tasks, table.max_hours, table.max_memory)
    number = table.processes or processes
    return pool_of(table.name, number, options, recycling, table.stall_timeout, table.start_timeout)


def pool_of(
    name: str,
    processes: int,
    options: WorkerOptions,
    recycling: Recycling,
    stall_timeout: float,
    start_timeout: float,
) -> PoolSpec:
    """Return a pool as the supervisor's program is given it."""
    given = options.model_dump(mode="json")
    return PoolSpec(name, processes, given, options.slots, recycling, stall_timeout, start_timeout)


def recycling_of(tasks: int | None, hours: float | None, mebibytes: int | None) -> Recycling:
    """Return when a process is replaced."""
    return Recycling(
        tasks,
        None if hours is None else hours * SECONDS_IN_HOUR,
        None if mebibytes is None else mebibytes * MIB,
    )


# ---- what is wrong with it --------------------------------------------------------------------------------------------


def mistakes(error: ValidationError, held: Mapping[str, Any]) -> str:
    """Return the mistakes in a file: where each stands, and what it is."""
    return "; ".join(f"{where(one['loc'], held)}: {mistake(dict(one))}" for one in error.errors())


def where(location: tuple[int | str, ...], held: Any) -> str:
    """Return where a mistake stands in words: pool 'mail', queue 'emails', threads."""
    parts: list[str] = []
    for step in location:
        held = inside(held, step)
        if isinstance(step, int):
            parts[-1] = f"{parts[-1].removesuffix('s')} {name_of(held, step)}"
        else:
            parts.append(step)
    return ", ".join(parts) or "the file"


def inside(held: Any, step: int | str) -> Any:
    """Return what stands there, None where nothing does."""
    try:
        return held[step]
    except (KeyError, IndexError, TypeError):
        return None


def name_of(held: Any, index: int) -> str:
    """Return an entry's own name, else its number, as people count."""
    name = held.get("name") if isinstance(held, dict) else held
    return repr(name) if isinstance(name, str) and name else str(index + 1)


def mistake(one: Mapping[str, Any]) -> str:
    """Return what is wrong; a value is not quoted where its key is unknown: it may be a password."""
    match one["type"]:
        case "extra_forbidden":
            return unknown(one["loc"])
        case "missing":
            return "it is missing"
        case "value_error":
            return str(one["ctx"]["error"])
        case "string_pattern_mismatch":
            return f"letters, digits, '.', '_' and '-' are allowed, 64 at the most, not {one['input']!r:.80}"
        case "tuple_type" if one["loc"] == ("pools",) and isinstance(one["input"], dict):
            return "each pool begins with [[pools]], in two brackets"
        case "model_type" | "dict_type" | "model_attributes_type":
            return f"it must be a table, not {one['input']!r:.80}"
    text = str(one["msg"]).removeprefix("Input ").replace("tuple", "list").replace("dictionary", "table")
    return f"it {text}, not {one['input']!r:.80}" if text.startswith("should") else text


def unknown(location: tuple[int | str, ...]) -> str:
    """Return that there is no such key, and which may have been meant."""
    models: dict[int, type[BaseModel]] = {1: ConfigFile, 3: PoolTable}
    keys = models.get(len(location), QueueOptions).model_fields
    key = str(location[-1])
    if len(location) > 1 and key in ConfigFile.model_fields:
        return "it belongs to the whole file: write it above the first [[pools]]"
    near = difflib.get_close_matches(key, keys, n=1)
    return f"there is no such key{f' (is it {near[0]}?)' if near else ''}"
