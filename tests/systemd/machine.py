"""
A machine with systemd as its first process, in seconds: this one's files below a throw-away layer, this one's network.

It needs root, `systemd-nspawn` and overlay mounts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support import wait_until

__all__ = ["Machine", "numbers_of", "overlay"]

TARGET = """
[Unit]
Requires=basic.target dbus.service
After=basic.target dbus.service
"""


@contextmanager
def overlay(folder: Path) -> Iterator[Path]:
    """Yield a copy of this machine's files, in which anything may be written; it is gone at the end."""
    for needed in (sys.prefix, sys.base_prefix):
        assert not needed.startswith(("/tmp/", "/run/")), f"{needed} is not seen there: a machine has a /tmp of its own"
    root, upper, work = (folder / name for name in ("root", "upper", "work"))
    for each in (root, upper, work):
        each.mkdir()
    command("mount", "-t", "overlay", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", str(root))
    try:
        # The interpreter may be in a home that others may not enter; here they may.
        for parent in (*Path(sys.executable).resolve().parents, *Path(sys.prefix).resolve().parents):
            inside = root / str(parent).lstrip("/")
            inside.chmod(inside.stat().st_mode | 0o055)
        yield root
    finally:
        # Lazily: what runs inside may take a moment to end.
        command("umount", "--lazy", str(root))
        for each in (root, upper, work):
            shutil.rmtree(each, ignore_errors=True)


class Machine:
    """A booted machine; what is written in it is gone with it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ends = ExitStack()
        self.root = self._ends.enter_context(overlay(folder))
        try:
            self._prepare()
            self._boot()
        except BaseException:
            self._ends.close()
            raise

    def _boot(self) -> None:
        self._log_path = self._folder / "boot.log"
        self._log = self._log_path.open("w")
        self._nspawn = subprocess.Popen(
            [
                *("systemd-nspawn", "-q", "-D", str(self.root), "--register=no", "--keep-unit", "--boot"),
                "systemd.unit=amqpworker-test.target",
            ],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        try:
            self._first = wait_until(self._find_first, 60, "the machine's first process")
            wait_until(self._is_up, 120, "the machine to boot")
        except BaseException as error:
            self._nspawn.kill()
            self._nspawn.wait()
            self._log.close()
            error.add_note(self._log_path.read_text())
            raise

    def _is_up(self) -> bool:
        return self.run("systemctl", "is-active", "dbus.service").returncode == 0

    def _prepare(self) -> None:
        (self.root / "etc/machine-id").unlink(missing_ok=True)
        command("systemd-machine-id-setup", f"--root={self.root}")
        (self.root / "etc/systemd/system/amqpworker-test.target").write_text(TARGET)

    def _find_first(self) -> int | None:
        """Return the child that is process 1 inside; for a moment nspawn has another one, that starts it and ends."""
        for child in Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split():
            if numbers_of(Path(f"/proc/{child}/status"))[1:] == ["1"]:
                return int(child)
        return None

    def run(self, *words: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AMQPWORKER_")}
        return subprocess.run(
            ["nsenter", "-t", str(self._first), "-a", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env={**environment, "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"},
        )

    def systemctl(self, *words: str, timeout: float = 120.0) -> str:
        """Run systemctl inside and return what it prints; it must succeed."""
        done = self.run("systemctl", *words, timeout=timeout)
        assert done.returncode == 0, f"systemctl {' '.join(words)}: {done.stderr}{done.stdout}\n{self.journal()}"
        return done.stdout.strip()

    def show(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.systemctl("show", "--value", "-p", name, unit)

    def journal(self, unit: str = "shop.service") -> str:
        """Return what a unit has logged."""
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", unit).stdout

    def processes(self, unit: str) -> list[int]:
        """Return the processes of a unit, by their numbers inside."""
        group = self.show(unit, "ControlGroup")
        # Groups of the second version, and of the first.
        places = [f"/sys/fs/cgroup{version}{group}/cgroup.procs" for version in ("", "/systemd")]
        return sorted({int(line) for line in self.run("cat", *places).stdout.split()})

    def limit_memory(self, unit: str, limit: int) -> None:
        """
        Give a unit so many bytes of memory, as `MemoryMax=` does.

        By ourselves where the groups are of the first version: there a machine inside may not set limits.
        """
        controller = Path("/sys/fs/cgroup/memory")
        if not controller.is_dir():
            self.systemctl("set-property", "--runtime", unit, f"MemoryMax={limit}", "MemorySwapMax=0")
            return
        group = controller / f"amqpworker-{self._first}"
        group.mkdir(exist_ok=True)
        (group / "memory.limit_in_bytes").write_text(str(limit))
        inside = set(self.processes(unit))
        for status in Path("/proc").glob("[0-9]*/status"):
            numbers = numbers_of(status)
            if len(numbers) == 2 and int(numbers[1]) in inside:
                (group / "cgroup.procs").write_text(numbers[0])

    def power_off(self) -> None:
        """End it, and leave nothing behind."""
        try:
            self.run("systemctl", "poweroff", timeout=20)
            self._nspawn.wait(30)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        self._log.close()
        group = Path(f"/sys/fs/cgroup/memory/amqpworker-{self._first}")
        if group.is_dir():
            wait_until(lambda: not (group / "cgroup.procs").read_text(), what="an empty group")
            group.rmdir()
        self._ends.close()


def numbers_of(status: Path) -> list[str]:
    """Return a process's numbers from its status file, from the outermost machine to the innermost; none if it is gone."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return []
    return next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])


def command(*words: str) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
