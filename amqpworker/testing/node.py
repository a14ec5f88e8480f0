"""
A private RabbitMQ node: from the installed package, in a folder, on free loopback ports, as any user.

Decides when the node counts as started and how it ends. Everything of it is in its folder, with its ports and process ids in
`node.json`: a `Node` of the same folder finds the same node later. It has an epmd (Erlang's name server) of its own, so that
nodes of several users and checkouts do not interfere, and none is left behind.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from amqpworker.broker.management import Management
from amqpworker.errors import ConfigError
from amqpworker.testing import logfiles, processes
from amqpworker.testing.configuration import (
    PLUGINS,
    Ports,
    Record,
    environment,
    plain_path,
    remove_link,
    scripts_folder,
    write_files,
)
from amqpworker.testing.waiting import is_true_within

# Without its management statistics the broker stops in one second; with them it waits five for itself (3.10.8).
_FORGET_STATISTICS = "gen_event:delete_handler(rabbit_event, rabbit_mgmt_db_handler, stop)."


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """The status of a node: `state` is `stopped`, `starting` or `running`."""

    state: str
    folder: str
    name: str | None = None
    pid: int | None = None
    url: str | None = None
    management_url: str | None = None

    @property
    def running(self) -> bool:
        """Return whether the node accepts connections."""
        return self.state == "running"


class Node:
    """
    The private node of a folder; making the object starts nothing.

    `extra_config` are lines of `rabbitmq.conf` from the next start on. A `tied` node ends with this process, however the
    process ends; any other runs until `stop`, from any process.
    """

    _plugins: tuple[str, ...] = PLUGINS

    def __init__(self, folder: Path | str, *, extra_config: str = "", tied: bool = False) -> None:
        self.folder = Path(folder).absolute()
        self._extra_config = extra_config
        self._tied = tied
        self._tie: int | None = None

    def start(self, timeout: float = 60.0) -> Self:
        """Start the node, unless it is running, and wait until it accepts connections; raises ConfigError with its log's end."""
        scripts = scripts_folder()
        with self._lock():
            record = Record.read(self.folder)
            if record and processes.is_ours(record.pid, record.mark):
                self._wait(record, timeout)
                return self
            if record:
                processes.end_all(record.mark)
            for may_retry in (True, True, False):
                record = Record.renewed(record)
                try:
                    self._launch(record, scripts)
                    self._wait(record, timeout)
                except BaseException as error:
                    processes.end_all(record.mark)
                    self._untie()
                    if not (may_retry and isinstance(error, ConfigError) and self._lost_a_port(record)):
                        raise
                else:
                    break
        return self

    def stop(self, timeout: float = 30.0) -> None:
        """Shut the node down gracefully and end all its processes; does nothing if it is stopped."""
        with self._lock():
            record = Record.read(self.folder)
            if record and processes.is_ours(record.pid, record.mark):
                with suppress(ConfigError):
                    self.rabbitmqctl("eval", _FORGET_STATISTICS, timeout=10.0)
                processes.send_signal(record.pid, record.mark, signal.SIGTERM)
                self._wait_gone(record, timeout)
            self._clear(record)

    def discard(self) -> None:
        """Kill the node with all its processes: for a node whose data is not needed any more."""
        with self._lock():
            self._clear(Record.read(self.folder))

    def tie(self, users: Path) -> None:
        """Have a running node end with the last process that has locked the file `users`, however these processes end."""
        record = self._record()
        env, log = environment(plain_path(self.folder, record), record), self.folder / "log" / logfiles.OUTPUT
        pids = [pid for pid in (record.pid, record.epmd_pid) if pid]
        self._untie()
        self._tie = processes.kill_with_parent(env, log, pids, users)

    def kill(self) -> None:
        """Kill the broker as a power cut does (SIGKILL); `start` or `restart` brings it back on the same ports."""
        record = self._record()
        processes.send_signal(record.pid, record.mark, signal.SIGKILL)
        self._wait_gone(record, timeout=10.0)

    def restart(self, timeout: float = 60.0) -> Self:
        """Stop the node, if it is running, and start it with the same data on the same ports."""
        self.stop()
        return self.start(timeout)

    def status(self) -> NodeStatus:
        """Return whether the node is running, and where."""
        record = Record.read(self.folder)
        if record is None:
            return NodeStatus("stopped", str(self.folder))
        if not processes.is_ours(record.pid, record.mark):
            return NodeStatus("stopped", str(self.folder), record.name)
        state = "running" if self._answers(record) else "starting"
        return NodeStatus(state, str(self.folder), record.name, record.pid, self.url(), self.management_url)

    def url(self, vhost: str = "/", user: str = "guest", password: str = "guest") -> str:  # noqa: S107
        """Return the AMQP URL of a virtual host."""
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"amqp://{login}@127.0.0.1:{self.ports.amqp}/{quote(vhost, safe='')}"

    @property
    def ports(self) -> Ports:
        """Return the node's ports; it has them from its first start on."""
        return self._record().ports

    @property
    def pid(self) -> int:
        """Return the process id of the broker's Erlang machine, as of the last start."""
        return self._record().pid

    @property
    def name(self) -> str:
        """Return the Erlang name of the node."""
        return self._record().name

    @property
    def management_url(self) -> str:
        """Return the address of the management UI; its login is guest, guest."""
        return f"http://127.0.0.1:{self.ports.management}/"

    def create_vhost(self, name: str) -> None:
        """Create a virtual host."""
        Management(self.management_url).request("PUT", "vhosts", name, body={})

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all that is in it."""
        Management(self.management_url).request("DELETE", "vhosts", name)

    def rabbitmqctl(self, *arguments: str, timeout: float = 30.0) -> str:
        """Run `rabbitmqctl` for this node and return its output; raises ConfigError with its last line if it fails."""
        command = [str(scripts_folder() / "rabbitmqctl"), *arguments]
        record = self._record()
        env = environment(plain_path(self.folder, record), record)
        try:
            done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout, check=False)  # noqa: S603
        except subprocess.TimeoutExpired as error:
            raise ConfigError(f"rabbitmqctl {arguments[0]} did not end within {timeout:g} s.") from error
        if done.returncode != 0:
            output = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no reason given"]
            raise ConfigError(f"rabbitmqctl {arguments[0]}: {output[-1]}")
        return done.stdout

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self, record: Record, scripts: Path) -> None:
        """Start epmd and the broker, and record their process ids at once."""
        write_files(self.folder, record.ports, self._extra_config, self._plugins)
        env = environment(plain_path(self.folder, record), record)
        log = self.folder / "log" / logfiles.OUTPUT
        record.write(self.folder)
        self._start_epmd(record, env, log)
        record.pid = processes.spawn([str(scripts / "rabbitmq-server")], env, log)
        record.write(self.folder)
        if self._tied:
            self._tie = processes.kill_with_parent(env, log, [pid for pid in (record.pid, record.epmd_pid) if pid])

    def _start_epmd(self, record: Record, env: dict[str, str], log: Path) -> None:
        port = record.ports.epmd
        command = ["/usr/bin/env", "epmd", "-address", "127.0.0.1", "-port", str(port)]
        record.epmd_pid = processes.spawn(command, env, log)
        if not is_true_within(10.0, lambda: not processes.is_free(port)):
            raise ConfigError("Erlang's name server (epmd) did not start: " + logfiles.failure(self.folder))

    def _wait(self, record: Record, timeout: float) -> None:
        def ended() -> bool:
            return not processes.is_ours(record.pid, record.mark)

        is_true_within(timeout, lambda: ended() or self._answers(record))
        if ended():
            raise ConfigError(f"RabbitMQ did not start in {self.folder}: {logfiles.failure(self.folder)}")
        if not self._answers(record):
            raise ConfigError(
                f"RabbitMQ did not start within {timeout:g} s in {self.folder}: {logfiles.failure(self.folder)}"
            )

    def _answers(self, record: Record) -> bool:
        """Return whether this node listens on both ports; a starting broker opens the AMQP port last."""
        try:
            api = Management(f"http://127.0.0.1:{record.ports.management}")
            overview = api.request("GET", "overview", timeout=5.0)
        except (ConfigError, ValueError):
            return False
        amqp = ("amqp", record.ports.amqp)
        listeners = {(listener["protocol"], listener["port"]) for listener in overview["listeners"]}
        return overview.get("node") == record.name and amqp in listeners

    def _lost_a_port(self, record: Record) -> bool:
        """Return whether another process took a port between our choice and the start."""
        return logfiles.names_taken_port(self.folder) or not all(map(processes.is_free, record.ports))

    def _wait_gone(self, record: Record, timeout: float) -> None:
        is_true_within(timeout, lambda: processes.gone(record.pid, record.mark))

    def _clear(self, record: Record | None) -> None:
        if record is not None:
            if not processes.end_all(record.mark):
                raise ConfigError(
                    f"Processes {processes.marked(record.mark)} of {self.folder} do not end, even by SIGKILL."
                )
            remove_link(record)
        self._untie()

    def _untie(self) -> None:
        if self._tie is not None:
            os.close(self._tie)
            self._tie = None

    def _record(self) -> Record:
        record = Record.read(self.folder)
        if record is None:
            raise ConfigError(f"There is no node in {self.folder}: none was ever started there.")
        return record

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Allow only one process at a time to start or stop this node."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = (self.folder / "lock").open("w")
        except OSError as error:
            raise ConfigError(f"The folder {self.folder} cannot be used for a node: {error.strerror}.") from error
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
