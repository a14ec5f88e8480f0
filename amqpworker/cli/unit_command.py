"""
`amqpworker unit`: a systemd unit for a pool.

Decides how a pool is run under systemd: what it may touch, when it is restarted, how it is stopped. `deploy/systemd/` has
the same for many pools, one instance each.
"""

from __future__ import annotations

import re
import shlex
import stat
import sys
from pathlib import Path
from typing import Annotated

import typer

from amqpworker.cli.output import print_error
from amqpworker.errors import ConfigError
from amqpworker.ipc.interpreter import folder_as_given, interpreter_as_given
from amqpworker.log.terminal import printable

__all__ = ["instances", "unit_app", "unit_text"]

UNIT = """\
# {install}
[Unit]
Description=amqpworker pool {name}
Wants=network-online.target
After=network-online.target

[Service]
Type=notify
NotifyAccess=main
{environment}WorkingDirectory={folder}
# The same path as a name: a reload follows the links in it.
Environment="PWD={quoted_folder}"
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID

# The supervisor feeds the watchdog while it and most of its processes are sound, and asks for more time while it drains
# or waits for the broker.
WatchdogSec=30
TimeoutStartSec=90
TimeoutStopSec=90
KillMode=mixed
Restart=on-failure
RestartSec=1
# 2: a mistake in the configuration, which a restart does not mend. 3: something that ran was abandoned at the stop.
RestartPreventExitStatus=2
SuccessExitStatus=3
# A worker process that is out of memory is replaced by its supervisor.
OOMPolicy=continue
# MemoryMax=2G

# The broker's URL: not in the environment, and not in what ps shows.
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
# Where `amqpworker workers` finds it.
RuntimeDirectory=amqpworker/{name}
# Where results are stored in a file, results="sqlite:////var/lib/amqpworker/{name}/results.db":
# StateDirectory=amqpworker/{name}

[Install]
WantedBy=multi-user.target
"""

unit_app = typer.Typer()


@unit_app.command(
    epilog="Examples:\n\n"
    "  amqpworker unit shop.tasks:app > /etc/systemd/system/shop.service\n\n"
    "  amqpworker unit shop.tasks:app --name shop --folder /srv/shop -- -p 4 -t 16 -q emails\n\n"
    "  amqpworker unit --name shop --folder /srv/shop --config /etc/amqpworker/shop.toml"
)
def unit(
    app: Annotated[str | None, typer.Argument(metavar="MODULE:APP", help="Where the app is.")] = None,
    options: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- OPTIONS OF WORKER", help="What `amqpworker worker` is to be given."),
    ] = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="What the unit is called.")] = "amqpworker",
    folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the app's modules are; default: here.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Run the pools of this file instead of those of an app.")
    ] = None,
    credential_file: Annotated[
        Path, typer.Option(metavar="FILE", help="The file with the broker's URL, which only root needs to read.")
    ] = Path("/etc/amqpworker/url"),
) -> None:
    """
    Print a systemd unit that runs a pool of this app, or the pools of a file.

    It notifies systemd, reloads without losing a consumer, reads the broker's URL as a credential and may touch little.
    """
    if (app is None) == (config is None):
        raise ConfigError("Give MODULE:APP, and behind -- the options of its pool, or --config FILE, not both.")
    arguments = [app, *(options or [])] if app is not None else ["--config", str(as_given(Path(str(config))))]
    command = [*program(), "worker", *arguments]
    where = as_given(folder or Path())
    credential = as_given(credential_file)
    check_words(name, [*command, str(where), str(credential)])
    if app is not None:
        check_worker(app, options or [])
    needed = [where, *([Path(arguments[1])] if config else [])]
    for path in needed:
        if not path.exists():
            print_error(f"Warning: {path} is not there on this machine.")
    reached = [*needed, Path(sys.executable)]
    for path in dict.fromkeys([*reached, *(one.resolve() for one in reached)]):
        if barred := bar(path):
            print_error(
                f"Warning: the service runs as a user of its own, and cannot reach {path}: others may not read {barred}."
            )
    typer.echo(
        unit_text(
            install=f"/etc/systemd/system/{name}.service",
            name=name,
            folder=str(where).replace("%", "%%"),
            command=" ".join(map(quoted, command)),
            credential_file=str(credential).replace("%", "%%"),
        ),
        nl=False,
    )


def check_words(name: str, words: list[str]) -> None:
    """
    Refuse what no unit can say.

    Raises:
        ConfigError: the name is none of a unit, or a word would not stay in its line.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name) or name.endswith(".service"):
        raise ConfigError(
            f"--name {printable(repr(name))}: letters a to z, digits, '.', '_' and '-' are allowed, 64 at the most, the"
            f" first a letter or a digit, and no '.service' behind it."
        )
    if strange := next((word for word in words if not word.isprintable()), None):
        raise ConfigError(f"{printable(strange)}: a unit cannot hold it: it has control characters, or is no UTF-8.")


def check_worker(app: str, options: list[str]) -> None:
    """
    Refuse what `amqpworker worker` would refuse at once, without looking for the app.

    Raises:
        ConfigError: it is no MODULE:APP, or an option belongs to no unit; click's UsageError: an option cannot be.
    """
    # The worker's own code, loaded by this command and not by each.
    from amqpworker.cli.worker_command import worker_app
    from amqpworker.worker.app_loader import split_target

    split_target(app)
    given = typer.main.get_command(worker_app).make_context("amqpworker worker", [app, *options]).params
    for name in ("config", "check", "as_json"):
        if given[name]:
            raise ConfigError(f"--{name.removeprefix('as_')} does not belong behind --: it is no option of a service.")


def bar(path: Path) -> Path | None:
    """Return what keeps others from reading a path: a folder above it, or itself; None where nothing does, or it is not there."""
    for one in (*reversed(path.parents), path):
        try:
            mode = one.stat().st_mode
        except OSError:
            return None  # it is of another machine
        needed = (0o5 if one == path else 0o1) if stat.S_ISDIR(mode) else 0o4
        if mode & needed != needed:
            return one
    return None


def unit_text(
    *, install: str, name: str, folder: str, command: str, credential_file: str, environment: str = ""
) -> str:
    """Return a unit; `environment` is a line of its own, where there is one."""
    from amqpworker.settings import CREDENTIAL

    # What lies in somebody's home must be seen there; a virtual environment often has its interpreter in one.
    needed = (folder, *(word.strip('"') for word in command.split()), str(Path(sys.executable).resolve()))
    inside_home = "%i" not in name and any(path.startswith(("/home/", "/root/")) for path in needed)
    return UNIT.format(
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


def instances() -> str:
    """Return the unit for many pools, `amqpworker@NAME`, each with a file of its own in /etc/amqpworker."""
    return unit_text(
        install="/etc/systemd/system/amqpworker@.service: a pool for each /etc/amqpworker/NAME.env",
        name="%i",
        folder="/srv/%i",
        # systemd splits what stands without braces into words.
        command="/opt/amqpworker/bin/amqpworker worker $WORKER_OPTIONS",
        credential_file="/etc/amqpworker/%i.url",
        environment="# AMQPWORKER_APP=shop.tasks:app and WORKER_OPTIONS=-p 4 -t 16\nEnvironmentFile=/etc/amqpworker/%i.env\n",
    )


def program() -> list[str]:
    """Return the command that is this program, as the unit is to start it."""
    python = interpreter_as_given()
    beside = Path(python).parent / "amqpworker"
    return [str(beside)] if beside.is_file() else [python, "-P", "-m", "amqpworker"]


def as_given(path: Path) -> Path:
    """Return a path from the root on, with the links in it; systemd takes none with `..`."""
    whole = folder_as_given() / path
    return whole.resolve() if ".." in whole.parts else whole


def quoted(word: str) -> str:
    """Return a word of a command line as systemd reads it: each of its characters stands for itself."""
    plain = word.replace("%", "%%").replace("$", "$$").replace("\\", "\\\\").replace('"', '\\"')
    return plain if shlex.quote(word) == word else f'"{plain}"'
