"""
How the command line becomes the supervisor: by another program in its place, in the same process.

The command line has loaded what reads and explains options, which a supervisor that lives for months does not need.
Decides what the program is given, and that no signal is lost on the way: those are held up until it listens.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from amqpworker.errors import ConfigError
from amqpworker.ipc.interpreter import command_of, interpreter_as_given
from amqpworker.supervisor.pools import PoolSpec, Recycling

__all__ = ["SIGNALS", "SupervisorConfig", "launch", "read"]

PROGRAM = "amqpworker.supervisor"
SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGCHLD,
)
"""What a supervisor listens to; SIGUSR2, which has its processes write their stacks, does nothing there."""


@dataclass(frozen=True, slots=True)
class SupervisorConfig:
    """
    What a supervisor is to run, where it answers (`health`), and how it logs.

    Its processes may use `cores` cores, and start in `folder`: a name, which may lead to another place by then.
    """

    pools: tuple[PoolSpec, ...]
    health: str | None = None
    log_level: str = "info"
    log_json: bool | None = None
    cores: int | None = None
    folder: str | None = None


def launch(setup: SupervisorConfig) -> NoReturn:
    """
    Become the supervisor: this process goes on as it, and ends with its exit code.

    Raises:
        ConfigError: the system does not let us.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # it is closed, or was from the beginning
            stream.flush()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    program = interpreter_as_given()
    try:
        os.execv(program, [program, *command(setup)[1:]])  # noqa: S606 - our own command
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"The supervisor cannot be started as {program!r}: {reason}.") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def command(setup: SupervisorConfig) -> list[str]:
    """Return the command of a supervisor; the apps stand in it for people who look at processes."""
    apps = sorted({str(pool.options["app"]) for pool in setup.pools})
    return [*command_of(PROGRAM), *apps, json.dumps(asdict(setup), separators=(",", ":"))]


def read(text: str) -> SupervisorConfig:
    """Return the setup in the last argument of the command."""
    fields: dict[str, Any] = json.loads(text)
    pools: Sequence[dict[str, Any]] = fields.pop("pools")
    return SupervisorConfig(
        tuple(PoolSpec(**{**pool, "recycling": Recycling(**pool["recycling"])}) for pool in pools), **fields
    )
