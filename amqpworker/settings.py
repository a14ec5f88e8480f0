"""
The settings of an app: by `App(settings=Settings(...))` or by `AMQPWORKER_…` in the environment.

Decides names, defaults and limits, and where the broker's URL comes from. Durations are seconds.
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

# Written as no one writes it: errors about this address ask whether the one that was meant is not set.
DEFAULT_URL = "amqp://guest:guest@localhost:5672/%2F"
PREFIX = "AMQPWORKER_"
# Read from the environment, but not settings.
OTHER_VARIABLES = ("APP", "URL", "MANAGEMENT")
# A variable this similar to a setting is a typo, such as AMQPWORKER_ACK_TIMOUT; others can belong to the service itself.
TYPO_SIMILARITY = 0.75
CREDENTIAL = "amqpworker_url"
MAX_HEARTBEAT = 0xFFFF  # 16 bits in AMQP


class Settings(BaseSettings):
    """
    The settings of an `App`; each field is also read from `AMQPWORKER_<NAME>`.

    Raises:
        ConfigError: a setting is unknown, or its value is invalid; the text does not show the value.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    declare: bool = Field(
        True, description="declare the topology of a queue, and create the schema of a result store, at its first use"
    )
    send_timeout: float = Field(15.0, gt=0, description="seconds until `send` gives up")
    resend: bool = Field(True, description="publish a message again, with the same id, if its confirm was lost")
    call_timeout: float = Field(30.0, gt=0, description="seconds until `call` gives up, if the call has no timeout")
    ack_timeout: float = Field(
        1800.0, gt=0, description="the broker's `consumer_timeout` in seconds; requested from RabbitMQ 4.3 on"
    )
    drain_timeout: float = Field(30.0, ge=0, description="seconds for running tasks to finish when a worker stops")
    max_crashes: int = Field(3, ge=1, description="how often a message can crash its isolated process")
    connect_timeout: float = Field(10.0, gt=0, description="seconds for one attempt to connect")
    heartbeat: int = Field(30, ge=0, le=MAX_HEARTBEAT, description="AMQP heartbeat in seconds; 0 turns it off")
    max_body: int = Field(1024 * 1024, gt=0, description="largest message body to send, in bytes")
    result_ttl: float = Field(86400.0, gt=0, description="seconds that a stored result is kept")
    max_result_bytes: int = Field(
        16 * 1024 * 1024, gt=0, description="largest result to store or reply, in bytes of JSON"
    )
    log_tasks: Literal["all", "failed"] = Field(
        "failed", description="log a line when a task ends: for `all` tasks, or for those that `failed`"
    )
    app_id: str | None = Field(None, description="the `app_id` property of sent messages: the service's name")
    tls_ca: Path | None = Field(None, description="CA certificates for amqps, in addition to the system's")
    tls_cert: Path | None = Field(
        None, description="client certificate for amqps; if the URL names no user, also the login"
    )
    tls_key: Path | None = Field(None, description="private key of the client certificate")

    @field_validator("tls_ca", "tls_cert", "tls_key")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        """Resolve the file now: it is read for each connection, and a task can change the current directory."""
        return None if path is None else path.absolute()

    if not TYPE_CHECKING:  # type checkers see the fields instead

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValidationError as error:
                mistakes = (_mistake(str(one["loc"][0]), one, values) for one in error.errors(include_url=False))
                raise ConfigError(f"{'; '.join(mistakes)}.") from None


def _mistake(name: str, error: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Return what is wrong with a setting, under the name by which it was given; its value can be a password."""
    if name == "url" and name in given:
        return "Unknown setting url: give the broker's URL to App, or set AMQPWORKER_URL"
    if error["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, Settings.model_fields, n=1)
        return f"Unknown setting {name}{f' (did you mean {near[0]}?)' if near else ''}"
    reason = error["msg"].removeprefix("Input ").replace("should", "must", 1)
    return f"Setting {name if name in given else f'{PREFIX}{name.upper()}'} {reason}"


def mistyped(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that look like a typo of one that is read, each with the one that was probably meant."""
    known = [name.upper() for name in (*Settings.model_fields, *OTHER_VARIABLES)]
    found = {}
    for variable in environment:
        name = variable.upper().removeprefix(PREFIX)
        if name != variable.upper() and name not in known:
            for near in difflib.get_close_matches(name, known, n=1, cutoff=TYPO_SIMILARITY):
                found[variable] = PREFIX + near
    return found


def broker_url(given: str | None) -> str:
    """
    Return the URL that was given, else `AMQPWORKER_URL`, else the systemd credential, else the local default.

    Raises:
        ConfigError: the credential cannot be read; the text does not show its content.
    """
    if given is not None:
        return given
    if from_environment := os.environ.get("AMQPWORKER_URL"):
        return from_environment
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    credential = _content_of(Path(folder) / CREDENTIAL) if folder else None
    return DEFAULT_URL if credential is None else credential


def _content_of(credential: Path) -> str | None:
    """Return the content of a credential, None if there is none."""
    try:
        return credential.read_bytes().decode().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = error.strerror or str(error)
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    # Not inside `except`: a decoding error contains all of the text.
    raise ConfigError(f"Cannot read the broker's URL from the credential {credential}: {reason}.")
