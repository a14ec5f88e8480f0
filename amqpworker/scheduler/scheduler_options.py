"""
The options of a scheduler: one model for the command line, the pool file, the scheduler process and docs/settings.md.

Decides names, flags, limits, defaults and help. The command line checks the options once, and passes them to the supervisor
and to the process as JSON.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from amqpworker.errors import ConfigError
from amqpworker.routing.topology import DEFAULT_SCHEDULER, check_scheduler_name
from amqpworker.worker.options import Flag, LogOptions


class SchedulerTable(BaseModel):
    """What can be set for a scheduler, on the command line or in a file; durations are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    app: str = Field(min_length=1, description="The app whose schedules are run, as MODULE:APP.")
    name: Annotated[str, Flag("NAME")] = Field(
        DEFAULT_SCHEDULER,
        description="Name of the scheduler: of all schedulers of a namespace with the same name, on any number of hosts, one leads.",
    )
    file: Annotated[str | None, Flag("FILE")] = Field(
        None, min_length=1, description="TOML file with more schedules; each new scheduler process reads it."
    )
    stall_timeout: Annotated[float, Flag("SECONDS")] = Field(
        60.0,
        ge=1,
        allow_inf_nan=False,
        description="Kill and replace a scheduler process that makes no progress for this many seconds.",
    )
    start_timeout: Annotated[float, Flag("SECONDS")] = Field(
        60.0,
        ge=1,
        allow_inf_nan=False,
        description="Kill a scheduler process that has not loaded the app and its schedules within this many seconds.",
    )

    @field_validator("name")
    @classmethod
    def _valid_name(cls, name: str) -> str:
        try:
            check_scheduler_name(name)
        except ConfigError as error:
            raise ValueError(str(error).removesuffix(".")) from None
        return name


class SchedulerOptions(SchedulerTable, LogOptions):
    """The options that a scheduler process is given."""
