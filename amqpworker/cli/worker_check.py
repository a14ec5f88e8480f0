"""
`amqpworker worker --check`: what would run, without running it.

Decides how it is shown. Each pool's app is imported in a process of its own (`worker.dry_run`).
"""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from amqpworker.cli.output import console, table, write_json
from amqpworker.errors import ConfigError
from amqpworker.ipc.descendants import alive_with_descendants, descendants_of, terminate_all
from amqpworker.ipc.exit_status import describe_exit
from amqpworker.ipc.interpreter import command_of
from amqpworker.log.terminal import print_error, printable
from amqpworker.supervisor.launch import SupervisorConfig
from amqpworker.supervisor.pools import PoolSpec
from amqpworker.worker.dry_run import Checked
from amqpworker.worker.options import WorkerOptions

# How late the end of a process is noticed if another process, which it has started, keeps the pipe open.
POLL_INTERVAL = 0.2
READ_SIZE = 1 << 16


def check_pools(config: SupervisorConfig, as_json: bool) -> None:
    """Show what would run; raises ConfigError with the problem of each pool that cannot run."""
    found = [(spec, dry_run(spec)) for spec in config.pools]
    named = len(found) > 1
    problems = [
        f"Pool {spec.name!r}: {checked.problem}" if named else checked.problem
        for spec, checked in found
        if checked.problem
    ]
    if problems:
        raise ConfigError(" ".join(problems))
    if as_json:
        write_json({"health": config.health, "pools": [_as_object(spec, checked) for spec, checked in found]})
        return
    _print_table(found, config.health)
    for spec, checked in found:
        for warning in checked.warnings:
            print_error(f"Warning: {f'pool {spec.name!r}: ' if named else ''}{warning}")


def dry_run(spec: PoolSpec) -> Checked:
    """Return what a process of its own found out about a pool; afterwards it and the processes it started are killed."""
    reading, writing = os.pipe()
    command = [*command_of("amqpworker.worker.dry_run"), json.dumps(spec.options), str(writing)]
    with open(reading, "rb", buffering=0) as pipe:
        try:
            process = subprocess.Popen(  # noqa: S603 - our own
                command, stdin=subprocess.DEVNULL, pass_fds=[writing], process_group=0
            )
        except OSError as error:
            return Checked(problem=f"Cannot start a process to import {spec.options['app']!r}: {error.strerror}.")
        finally:
            os.close(writing)
        try:
            found = _read_answer(process, pipe, spec.start_timeout)
        finally:
            left = descendants_of(process.pid)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            terminate_all(lambda: alive_with_descendants(left), grace=0.0)
            process.wait()
    return found if isinstance(found, Checked) else Checked(problem=f"{spec.options['app']!r} {found}.")


def _read_answer(process: subprocess.Popen[bytes], pipe: io.FileIO, timeout: float) -> Checked | str:
    """Return what a process writes into a pipe, as a line, or why there is none."""
    until = time.monotonic() + timeout
    line = b""
    while not line.endswith(b"\n"):
        # Before the pipe is read, so that everything which the process had written by its end is read.
        code = process.poll()
        if select.select([pipe], [], [], POLL_INTERVAL if code is None else 0)[0]:
            line += (read := pipe.read(READ_SIZE) or b"")
            if read:
                continue
            # Its end of the pipe is closed: it has ended, or the app has closed descriptors that it did not open.
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(max(0.0, until - time.monotonic()))
        if code is not None:
            return f"cannot be imported: its process ended by {describe_exit(code)}"
        if time.monotonic() >= until:
            return f"is not imported within {timeout:g} s: find what it waits for, or increase --start-timeout"
    return Checked.model_validate_json(line)


def _as_object(spec: PoolSpec, found: Checked) -> dict[str, Any]:
    return {
        "name": spec.name,
        "app": spec.options["app"],
        "processes": spec.processes,
        "async_tasks": spec.options["async_tasks"],
        "max_suspects": WorkerOptions.model_validate_json(json.dumps(spec.options)).suspects,
        "drain_timeout": found.drain_timeout,
        "stall_timeout": spec.stall_timeout,
        "start_timeout": spec.start_timeout,
        "recycling": asdict(spec.recycling),
        "queues": [asdict(queue) for queue in found.queues],
        "warnings": list(found.warnings),
    }


def _print_table(found: Sequence[tuple[PoolSpec, Checked]], health: str | None) -> None:
    rows = table("pool", "app", "processes", "queue", "threads", "prefetch")
    for spec, checked in found:
        pool = [printable(spec.name), printable(spec.options["app"]), str(spec.processes)]
        for serving in checked.queues:
            threads = f"{serving.threads} of its own" if serving.own else str(serving.threads)
            rows.add_row(*pool, printable(serving.queue), threads, str(serving.prefetch))
            pool = ["", "", ""]
    console().print(rows)
    if health is not None:
        console().print(f"health: {printable(health)}")
