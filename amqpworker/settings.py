"""
What can be set from outside: by `App(settings=Settings(...))` or by `AMQPWORKER_…` in the environment.

Decides defaults, and where the broker's URL comes from. Durations are seconds.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from amqpworker.errors import ConfigError

__all__ = ["CREDENTIAL", "Settings", "broker_url", "mistyped"]

DEFAULT_URL = "amqp://guest:guest@localhost:5672/"
PREFIX = "AMQPWORKER_"
# What is read from the environment beside the settings.
OTHER_VARIABLES = ("APP", "URL", "MANAGEMENT")
# Nearer than this is a slip, as AMQPWORKER_ACK_TIMOUT is; what is further off may be a variable of the service's own.
SLIP = 0.75
CREDENTIAL = "amqpworker_url"
MOST_HEARTBEAT = 0xFFFF  # AMQP has 16 bits for it


class Settings(BaseSettings):
    """
    The settings of an `App`; each field is also read from `AMQPWORKER_<NAME>`.

    Raises:
        ConfigError: one has a value that does not fit, or there is no such setting; the value is not told.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    declare: bool = Field(True, description="make sure that the topology of a queue exists at its first use")
    send_timeout: float = Field(15.0, gt=0, description="seconds until `send` gives up")
    resend: bool = Field(True, description="publish a message again, under its id, if its confirm was lost")
    call_timeout: float = Field(30.0, gt=0, description="seconds until `call` gives up, unless told")
    ack_timeout: float = Field(
        1800.0, gt=0, description="the broker's consumer_timeout, in seconds; from RabbitMQ 4.3 on it is asked for"
    )
    drain_timeout: float = Field(30.0, ge=0, description="seconds that running tasks get when a worker stops")
    max_crashes: int = Field(3, ge=1, description="how often a message may take down its isolated process")
    connect_timeout: float = Field(10.0, gt=0, description="seconds for one attempt to connect")
    heartbeat: int = Field(30, ge=0, le=MOST_HEARTBEAT, description="AMQP heartbeat in seconds, 0 turns it off")
    max_body: int = Field(1024 * 1024, gt=0, description="largest body that is sent, in bytes")
    result_ttl: float = Field(86400.0, gt=0, description="seconds that a stored result is kept")
    log_tasks: Literal["all", "failed"] = Field(
        "failed", description="which tasks leave a line in the log when they end: `all`, or those that `failed`"
    )
    app_id: str | None = Field(None, description="the `app_id` property of what is sent: which service it was")
    tls_ca: Path | None = Field(None, description="the authority to trust for amqps, beside the system's")
    tls_cert: Path | None = Field(
        None, description="our own certificate for amqps; without a user in the URL, the login too"
    )
    tls_key: Path | None = Field(None, description="the key of our own certificate")

    @field_validator("tls_ca", "tls_cert", "tls_key")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        """Keep the file that is meant now: it is read for each connection, and a task may change the current folder."""
        return None if path is None else path.absolute()

    if not TYPE_CHECKING:  # a type checker is to see the fields instead

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                told = "; ".join(_problem(str(one["loc"][0]), one, values) for one in error.errors(include_url=False))
                raise ConfigError(f"A setting does not fit: {told}.") from None


def _problem(name: str, error: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Say what is wrong with a setting, under the name that it was given by."""
    if name == "url" and name in given:
        return "url: the broker's URL is given to App, or as AMQPWORKER_URL"
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such setting"
    return f"{name if name in given else f'{PREFIX}{name.upper()}'}: {error['msg']}"


def mistyped(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are read by nobody but look like one that is, each with the one most likely meant."""
    known = [name.upper() for name in (*Settings.model_fields, *OTHER_VARIABLES)]
    found = {}
    for variable in environment:
        name = variable.upper().removeprefix(PREFIX)
        if name != variable.upper() and name not in known:
            for near in difflib.get_close_matches(name, known, n=1, cutoff=SLIP):
                found[variable] = PREFIX + near
    return found


def broker_url(given: str | None) -> str:
    """
    Return the URL that was given, else `AMQPWORKER_URL`, else the systemd credential, else the local default.

    Raises:
        ConfigError: the credential cannot be read; what it holds is not told.
    """
    if given is not None:
        return given
    if from_environment := os.environ.get("AMQPWORKER_URL"):
        return from_environment
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    credential = _text_of(Path(folder) / CREDENTIAL) if folder else None
    return DEFAULT_URL if credential is None else credential


def _text_of(credential: Path) -> str | None:
    """Return what a credential says, None where there is none."""
    try:
        return credential.read_bytes().decode().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        problem = f"it cannot be read: {error.strerror or error}"
    except UnicodeDecodeError:
        problem = "it is not in UTF-8"
    # Not inside of `except`: the error of a decoder holds all of the text.
    raise ConfigError(f"The broker's URL is to come from the credential {credential}: {problem}.")
