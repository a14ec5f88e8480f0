"""Where the bench's programs are, and how processes are started, watched and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"
PEERS = BENCH / ".venv" / "bin"
BUILD = BENCH / ".build"
GO_CONSUMER = BUILD / "go_consumer"
OWN_PYTHON = sys.executable
OWN_PROGRAM = str(Path(OWN_PYTHON).with_name("amqpworker"))
PEER_PYTHON = str(PEERS / "python")
GOCODE = "/usr/share/gocode"

STOP_PATIENCE = 10.0


class SideFailed(Exception):
    """A process of one side did not do what it was started for."""


class SideSkipped(Exception):
    """A side cannot be measured here, which is not a failure: the text is the reason."""


def prepare() -> None:
    """Make the peers' virtual environment and build the Go consumer, if that has not been done."""
    wanted = (BENCH / "requirements.txt").read_text()
    made_from = BENCH / ".venv" / "requirements.txt"
    if not made_from.is_file() or made_from.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(BENCH / ".venv")], check=True)
        pip = [PEER_PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-r", str(BENCH / "requirements.txt")], check=True)
        made_from.write_text(wanted)
    BUILD.mkdir(exist_ok=True)
    source = BENCH / "sides" / "go" / "main.go"
    if not GO_CONSUMER.is_file() or GO_CONSUMER.stat().st_mtime < source.stat().st_mtime:
        environment = {**os.environ, "GO111MODULE": "off", "GOPATH": GOCODE, "GOCACHE": str(BUILD / "go-cache")}
        command = ["go", "build", "-o", str(GO_CONSUMER), str(source)]
        subprocess.run(command, check=True, env=environment)


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return what a side's process finds in its environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AMQPWORKER_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "", **more}


def run(command: Sequence[str], more: Mapping[str, str], patience: float = 300) -> str:
    """
    Run a process to its end and return what it printed.

    Raises:
        SideFailed: it ended with an error, or not in time.
    """
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment(more), capture_output=True, text=True, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SideFailed(f"{' '.join(command)} took longer than {patience:.0f} s") from error
    if done.returncode:
        raise SideFailed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


class Running:
    """Processes of one side that run while the bench measures."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.processes: list[subprocess.Popen[bytes]] = []

    def check(self) -> None:
        """
        Make sure that all are alive.

        Raises:
            SideFailed: one has ended.
        """
        for process in self.processes:
            if process.poll() is not None:
                raise SideFailed(f"{process.args} ended with {process.returncode}:\n{self.tail()}")

    def wait(self, patience: float) -> None:
        """
        Wait until all have ended.

        Raises:
            SideFailed: one has ended with an error, or not in time.
        """
        deadline = time.monotonic() + patience
        for process in self.processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired as error:
                raise SideFailed(f"{process.args} took longer than {patience:.0f} s:\n{self.tail()}") from error
            if process.returncode:
                raise SideFailed(f"{process.args} ended with {process.returncode}:\n{self.tail()}")

    def lines(self) -> list[str]:
        """Return what they printed, line by line."""
        return self.log.read_text(errors="replace").splitlines()

    def tail(self) -> str:
        """Return the end of what they printed."""
        return self.log.read_text(errors="replace")[-2000:]

    def memory(self) -> int:
        """Return the resident bytes of these processes and their children."""
        return sum(resident(pid) for process in self.processes for pid in _family(process.pid))

    def cpu_seconds(self) -> float:
        """Return the processor time that these processes and their children have taken so far."""
        return sum(cpu_seconds(pid) for process in self.processes for pid in _family(process.pid))


@contextmanager
def running(commands: Sequence[Sequence[str]], more: Mapping[str, str], log: Path) -> Iterator[Running]:
    """Run processes, each in a session of its own, and end them and their children."""
    started = Running(log)
    with ExitStack() as stack:
        output = stack.enter_context(log.open("wb"))
        for command in commands:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment(more),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            stack.callback(_end, process)
            started.processes.append(process)
        yield started


def _end(process: subprocess.Popen[bytes]) -> None:
    family = _family(process.pid)
    process.terminate()
    try:
        process.wait(STOP_PATIENCE)
    except subprocess.TimeoutExpired:
        for pid in family:
            _kill(pid)
        process.wait(STOP_PATIENCE)
    deadline = time.monotonic() + 2
    while any(_in_session(pid, process.pid) for pid in family) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in family:
        if _in_session(pid, process.pid):
            _kill(pid)


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def _in_session(pid: int, session: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] != "Z" and int(fields[3]) == session


def _family(pid: int) -> list[int]:
    """Return the processes of the session that this process leads, itself first."""
    numbers = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return [pid, *(number for number in numbers if number != pid and _in_session(number, pid))]


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has taken so far, in it and in the kernel; 0 if there is none."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def resident(pid: int) -> int:
    """Return the resident bytes of a process, 0 if there is none."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak(pid: int) -> int:
    """Return the most resident bytes that a process has had since its program was started, 0 if there is none."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
