"""The configuration of a private node: ports, environment, configuration files, and `node.json`."""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

from amqpworker.errors import ConfigError
from amqpworker.testing import logfiles, processes
from amqpworker.testing.waiting import is_true_within

PACKAGE = "/usr/lib/rabbitmq/lib"
# The UI's *Move messages* needs the last two.
PLUGINS = ("rabbitmq_management", "rabbitmq_shovel", "rabbitmq_shovel_management")
PLACES = ("/opt/rabbitmq/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")

NOT_INSTALLED = (
    "RabbitMQ is not installed: run `apt-get install rabbitmq-server`, "
    "or set AMQPWORKER_URL to a broker that is running already."
)


@dataclass(frozen=True, slots=True)
class Ports:
    """The loopback ports of a node; `dist` and `epmd` are Erlang's own."""

    amqp: int
    management: int
    dist: int
    epmd: int

    @classmethod
    def free(cls) -> Self:
        """Choose four free ports."""
        return cls(*processes.free_ports(4))

    def __iter__(self) -> Iterator[int]:
        return iter((self.amqp, self.management, self.dist, self.epmd))


@dataclass(slots=True)
class Record:
    """`node.json`: what is needed to find a node again."""

    name: str
    mark: str
    ports: Ports
    pid: int = 0
    epmd_pid: int = 0

    @classmethod
    def renewed(cls, old: Record | None) -> Record:
        """Prepare a start: keep the name, which the data belongs to, and the ports that are still free."""
        if old is None:
            mark = secrets.token_hex(6)
            return cls(f"amqpworker-{mark}@localhost", mark, Ports.free())
        is_true_within(2.0, lambda: processes.is_free(old.ports.amqp))
        ports = [
            port if processes.is_free(port) else other for port, other in zip(old.ports, Ports.free(), strict=True)
        ]
        return replace(old, ports=Ports(*ports), pid=0, epmd_pid=0)

    @classmethod
    def read(cls, folder: Path) -> Record | None:
        """Read the record of a folder, None if no node was ever started there; raises ConfigError if it cannot be read."""
        try:
            fields = json.loads((folder / "node.json").read_text())
            return cls(**{**fields, "ports": Ports(**fields["ports"])})
        except FileNotFoundError:
            return None
        except NotADirectoryError as error:
            raise ConfigError(f"{folder} cannot be the folder of a node: a part of the path is a file.") from error
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"{folder / 'node.json'} cannot be read ({error}): delete the folder to start with a new node."
            ) from error

    def write(self, folder: Path) -> None:
        """Replace the record in one step."""
        new = folder / "node.json.new"
        new.write_text(json.dumps(asdict(self), indent=2) + "\n")
        os.replace(new, folder / "node.json")


def scripts_folder() -> Path:
    """Find the broker's own scripts: Debian's wrappers in the PATH run only as the user rabbitmq; raises ConfigError if none."""
    packaged = sorted(Path(PACKAGE).glob("rabbitmq_server-*/sbin"), key=_version, reverse=True)
    for folder in (*packaged, *map(Path, PLACES)):
        if (folder / "rabbitmq-server").is_file():
            return folder
    raise ConfigError(NOT_INSTALLED)


def _version(folder: Path) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", folder.parent.name))


def plain_path(folder: Path, record: Record) -> Path:
    """
    Return a path of the folder that the broker accepts: itself, or a link in the temporary folder.

    RabbitMQ passes its data folder to a shell: spaces are fine, a quote makes its start hang for ever (tried on 3.10.8).
    """
    if re.fullmatch(r"[\w /.,:+=@%~-]+", str(folder), re.ASCII):
        return folder
    link = _link(record)
    link.unlink(missing_ok=True)
    link.symlink_to(folder)
    return link


def remove_link(record: Record) -> None:
    """Remove what `plain_path` may have made."""
    _link(record).unlink(missing_ok=True)


def _link(record: Record) -> Path:
    return Path(tempfile.gettempdir()) / f"amqpworker-{record.mark}"


def environment(folder: Path, record: Record) -> dict[str, str]:
    """
    Return the whole environment of the node's processes; nothing is inherited.

    A variable of the caller (`NOTIFY_SOCKET`, `ERL_FLAGS`, `RABBITMQ_…`) or a file below `/etc/rabbitmq` could otherwise
    change how this node runs.
    """
    nothing = str(folder / "none")
    loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
    return {
        processes.MARK: record.mark,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": str(folder / "home"),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(record.ports.epmd),
        "ERL_CRASH_DUMP": os.devnull,
        "RABBITMQ_NODENAME": record.name,
        "RABBITMQ_DIST_PORT": str(record.ports.dist),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_PID_FILE": str(folder / "broker.pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_CONFIG_FILES": nothing,
        "RABBITMQ_ADVANCED_CONFIG_FILE": nothing,
        "RABBITMQ_CONF_ENV_FILE": nothing,
        "RABBITMQ_ALLOW_INPUT": "1",  # the start script becomes the broker, rather than its parent
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-noinput {loopback}",
        "RABBITMQ_CTL_ERL_ARGS": loopback,
        "RABBITMQ_CTL_DIST_PORT_MAX": "36672",
    }


def write_files(folder: Path, ports: Ports, extra_config: str, plugins: Sequence[str]) -> None:
    """Write the node's configuration files, and start new logs."""
    for name in ("home", "log", "data"):
        (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    logfiles.begin(folder)
    (folder / "enabled_plugins").write_text(f"[{', '.join(plugins)}].\n")
    (folder / "rabbitmq.conf").write_text(
        f"""\
listeners.tcp.1 = 127.0.0.1:{ports.amqp}
management.tcp.ip = 127.0.0.1
management.tcp.port = {ports.management}
disk_free_limit.absolute = 50MB
log.console = false
log.file = {logfiles.LOG}
{extra_config}
"""
    )
