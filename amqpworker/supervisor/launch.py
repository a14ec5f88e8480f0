"""
How the program of the command line becomes the supervisor: by `exec`, so the process stays the same and its memory is freed.

The command line has loaded what checks and explains options, which a supervisor that lives for months does not need.
Decides what the supervisor is given, and that no signal is lost meanwhile: signals are blocked until it handles them.
"""

from __future__ import annotations

import json
import os
import signal
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from amqpworker.errors import ConfigError
from amqpworker.ipc.ending import flush_streams
from amqpworker.ipc.interpreter import command_of, interpreter_as_given
from amqpworker.supervisor.pools import PoolSpec

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
"""What a supervisor handles; SIGUSR2, which makes its processes log their stacks, does nothing there."""


@dataclass(frozen=True, slots=True)
class SupervisorConfig:
    """
    The pools of a supervisor, where it serves its status (`health`), and how it logs.

    Its processes may use `cores` cores, and start in `folder`: a path whose links can change later.
    """

    pools: tuple[PoolSpec, ...]
    health: str | None
    log_level: str
    log_json: bool | None
    cores: int | None = None
    folder: str | None = None


def launch(config: SupervisorConfig) -> NoReturn:
    """Continue as the supervisor, in this process; raises ConfigError if the system cannot start it."""
    flush_streams()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    program = interpreter_as_given()
    try:
        os.execv(program, [program, *command(config)[1:]])  # noqa: S606 - our own command
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"The supervisor cannot be started as {program!r}: {reason}.") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def command(config: SupervisorConfig) -> list[str]:
    """Return the command of a supervisor; it names the apps for people who read a list of processes."""
    apps = sorted({str(pool.options["app"]) for pool in config.pools})
    return [*command_of(PROGRAM), *apps, json.dumps(asdict(config), separators=(",", ":"))]


def parse_config(text: str) -> SupervisorConfig:
    """Return the configuration in the last argument of the command."""
    fields: dict[str, Any] = json.loads(text)
    return SupervisorConfig(tuple(PoolSpec(**pool) for pool in fields.pop("pools")), **fields)
