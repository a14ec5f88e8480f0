"""
The unix sockets by which `amqpworker status` finds the supervisors of a machine.

Decides in which folder they are, and which of them are left over from supervisors that were killed.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

from amqpworker.errors import ConfigError

SHARED = Path("/run/amqpworker")


def socket_folder() -> Path:
    """Return the folder for the sockets of this user's supervisors; raises ConfigError if other users may write to it."""
    given = _runtime_directory() or os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(given) / "amqpworker" if given else Path(f"/tmp/amqpworker-{os.getuid()}")  # noqa: S108 - checked below
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or folder.is_symlink() or found.st_mode & 0o022:
        raise ConfigError(f"{folder} belongs to another user, or others may write to it: remove it.")
    return folder


def _runtime_directory() -> Path | None:
    """
    Return the unit's runtime directory; of several the one that `amqpworker status` searches, else the first.

    systemd separates them by colons: https://www.freedesktop.org/software/systemd/man/systemd.exec.html#RuntimeDirectory=
    """
    given = [Path(name) for name in os.environ.get("RUNTIME_DIRECTORY", "").split(":") if name.startswith("/")]
    return next((path for path in given if path.parent == SHARED), given[0] if given else None)


def sockets() -> list[Path]:
    """Return the sockets of the supervisors on this machine that this user can access."""
    folders = [SHARED, *(SHARED.glob("*/amqpworker") if SHARED.is_dir() else [])]
    with suppress(ConfigError, OSError):
        folders.append(socket_folder())
    found: set[Path] = set()
    for folder in folders:
        with suppress(OSError):
            found.update(folder.glob("*.sock"))
    return sorted(found)


def service_of(socket_path: Path) -> str:
    """Return the name of the service of a socket, as in its unit (`RuntimeDirectory=amqpworker/NAME`)."""
    folder = socket_path.parent.parent
    return folder.name if folder.parent == SHARED else ""


def is_abandoned(path: Path) -> bool:
    """Return whether no process listens on a socket any more; a process that hangs still listens."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        except OSError as error:
            return error.errno is None  # the path is too long for a socket: binding it raises an error
    return False


def remove_abandoned(folder: Path) -> None:
    """
    Remove the sockets of killed supervisors from a folder of this user.

    A socket is removed only if no process listens on it and none has this id: a supervisor in a container has another id here,
    and one that is starting has bound its socket and does not listen yet.
    """
    for path in folder.glob("*.sock"):
        if path.stem.isdecimal() and not _exists(int(path.stem)) and is_abandoned(path):
            with suppress(OSError):
                path.unlink()


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
