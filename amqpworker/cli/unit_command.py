"""
`amqpworker unit`: a systemd unit for a pool or a scheduler.

Decides how systemd runs a pool: what the service can access, when it is restarted, how it is stopped. `deploy/systemd/` has
the same unit as a template for many pools.
"""

from __future__ import annotations

import re
import shlex
import stat
import sys
from pathlib import Path
from typing import Annotated

import typer

from amqpworker.cli.shared import examples
from amqpworker.errors import ConfigError
from amqpworker.ipc.interpreter import folder_as_given, interpreter_as_given
from amqpworker.log.terminal import print_error, printable

UNIT_TEXT = """\
# {install}
[Unit]
Description=amqpworker pool {name}
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
NotifyAccess=main
{environment}WorkingDirectory={folder}
# The path with its links: after a reload they lead to the new code.
Environment="PWD={quoted_folder}"
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID

# The supervisor resets the watchdog while it and most of its processes are healthy, and extends the timeouts while it
# drains or waits for the broker.
WatchdogSec=30
TimeoutStartSec=90
TimeoutStopSec=90
KillMode=mixed
Restart=on-failure
RestartSec=1
# 2: a mistake in the configuration, which a restart does not fix. 3: a running task was abandoned when it stopped.
RestartPreventExitStatus=2
SuccessExitStatus=3
# The supervisor replaces a worker process that runs out of memory.
OOMPolicy=continue
# MemoryMax=2G

# The broker's URL, which neither the environment nor ps shows.
LoadCredential={credential}:{credential_file}

DynamicUser=yes
UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
DevicePolicy=closed
ProtectSystem=strict
ProtectHome={protect_home}
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM
# Where `amqpworker workers` finds this pool.
RuntimeDirectory=amqpworker/{name}
# For results in a file, App(results="sqlite:////var/lib/amqpworker/{name}/results.db"):
# StateDirectory=amqpworker/{name}

[Install]
WantedBy=multi-user.target
"""

unit_app = typer.Typer()


@unit_app.command(
    epilog=examples(
        "amqpworker unit shop.tasks:app > /etc/systemd/system/shop.service",
        "amqpworker unit shop.tasks:app --name shop --folder /srv/shop -- -p 4 -t 16",
        "amqpworker unit shop.tasks:app --scheduler -- --file schedules.toml",
        "amqpworker unit --folder /srv/shop --config /etc/amqpworker/shop.toml",
    )
)
def unit(
    app: Annotated[str | None, typer.Argument(metavar="MODULE:APP", help="The app to run.")] = None,
    options: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="-- OPTIONS", help="Options of `amqpworker worker`, or with --scheduler of `amqpworker scheduler`."
        ),
    ] = None,
    scheduler: Annotated[
        bool, typer.Option("--scheduler", help="Run the app's schedules (`amqpworker scheduler`) instead of its tasks.")
    ] = False,
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the unit.")] = "amqpworker",
    folder: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where the app's modules are.", show_default="the current folder"),
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Run the pools of this file instead.")] = None,
    credential_file: Annotated[
        Path, typer.Option(metavar="FILE", help="The file with the broker's URL; only root needs to read it.")
    ] = Path("/etc/amqpworker/url"),
) -> None:
    """
    Print a systemd unit for an app, a scheduler or a pool file.

    The service notifies systemd, reloads without a gap in consuming, gets the broker's URL as a credential, and is sandboxed.
    """
    if (app is None) == (config is None):
        raise ConfigError("Give either MODULE:APP, with its options after --, or --config FILE.")
    if scheduler and config is not None:
        raise ConfigError("--scheduler cannot be used with --config: write [scheduler] in the file.")
    arguments = [app, *(options or [])] if app is not None else ["--config", str(_as_given(Path(str(config))))]
    command = [*_program_as_given(), "scheduler" if scheduler else "worker", *arguments]
    where = _as_given(folder or Path())
    credential = _as_given(credential_file)
    _check_printable(name, [*command, str(where), str(credential)])
    if app is not None:
        _check_options(app, options or [], scheduler)
    needed = [where, *([Path(arguments[1])] if config else [])]
    for path in needed:
        if not path.exists():
            print_error(f"Warning: {path} does not exist on this machine.")
    reached = [*needed, Path(sys.executable)]
    for path in dict.fromkeys([*reached, *(path.resolve() for path in reached)]):
        if found := unreadable_part(path):
            print_error(
                f"Warning: the service runs as its own user, which cannot read {path}: no permission for {found}."
            )
    typer.echo(
        unit_text(
            install=f"/etc/systemd/system/{name}.service",
            name=name,
            folder=str(where).replace("%", "%%"),
            command=" ".join(map(_escaped, command)),
            credential_file=str(credential).replace("%", "%%"),
        ),
        nl=False,
    )


def _check_printable(name: str, words: list[str]) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name) or name.endswith(".service"):
        raise ConfigError(
            f"--name {printable(repr(name))}: must be at most 64 letters a to z, digits, '.', '_' and '-', start with a "
            "letter or a digit, and not end in '.service'."
        )
    if found := next((word for word in words if not word.isprintable()), None):
        raise ConfigError(
            f"{printable(found)}: has characters that a unit cannot contain: control characters, or not UTF-8."
        )


def _check_options(app: str, options: list[str], scheduler: bool) -> None:
    """Refuse what `amqpworker worker` or `amqpworker scheduler` would refuse at once, without importing the app."""
    # Loaded only by this command: they are most of what those commands need.
    from amqpworker.cli import scheduler_command, worker_command
    from amqpworker.worker.app_loader import split_target

    split_target(app)
    name, typed = ("scheduler", scheduler_command.scheduler_app) if scheduler else ("worker", worker_command.worker_app)
    given = typer.main.get_command(typed).make_context(f"amqpworker {name}", [app, *options]).params
    for option in worker_command.ALLOWED_WITH_CONFIG:
        if given.pop(option, None):
            raise ConfigError(
                f"--{option.removeprefix('as_')} cannot be used after --: it is not an option of a service."
            )
    check = scheduler_command.config_from_flags if scheduler else worker_command.config_from_flags
    check(given.pop("app"), given)


def unreadable_part(path: Path) -> Path | None:
    """Return the first part of a path that other users cannot read, None if there is none or the path does not exist."""
    for part in (*reversed(path.parents), path):
        try:
            mode = part.stat().st_mode
        except OSError:
            return None  # it is a path of another machine
        needed = (0o5 if part == path else 0o1) if stat.S_ISDIR(mode) else 0o4
        if mode & needed != needed:
            return part
    return None


def unit_text(
    *, install: str, name: str, folder: str, command: str, credential_file: str, environment: str = ""
) -> str:
    """Return a unit; `environment` is empty or whole lines."""
    from amqpworker.settings import CREDENTIAL

    # The service must see paths in a home directory; a virtual environment often has its interpreter in one.
    needed = (folder, *(word.strip('"') for word in command.split()), str(Path(sys.executable).resolve()))
    inside_home = "%i" not in name and any(path.startswith(("/home/", "/root/")) for path in needed)
    return UNIT_TEXT.format(
        install=install,
        name=name,
        folder=folder,
        quoted_folder=folder.replace("\\", "\\\\").replace('"', '\\"'),
        command=command,
        credential=CREDENTIAL,
        credential_file=credential_file,
        environment=environment,
        protect_home="read-only" if inside_home else "yes",
    )


def _program_as_given() -> list[str]:
    python = interpreter_as_given()
    beside = Path(python).parent / "amqpworker"
    return [str(beside)] if beside.is_file() else [python, "-P", "-m", "amqpworker"]


def _as_given(path: Path) -> Path:
    """Return an absolute path with its links unresolved, except if it contains `..`, which systemd does not accept."""
    whole = folder_as_given() / path
    return whole.resolve() if ".." in whole.parts else whole


def _escaped(word: str) -> str:
    """Return a word of a command line, escaped so that systemd reads each character literally."""
    plain = word.replace("%", "%%").replace("$", "$$").replace("\\", "\\\\").replace('"', '\\"')
    return plain if shlex.quote(word) == word else f'"{plain}"'
