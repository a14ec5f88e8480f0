"""
`amqpworker worker --check`: what would run, without running it.

Decides how it is shown. The apps are imported by processes of their own (`worker.check`), one for each pool.
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

from amqpworker.cli.output import console, print_error, printable, table, write_json
from amqpworker.errors import ConfigError
from amqpworker.ipc.descendants import alive_with_descendants, descendants_of, terminate_all
from amqpworker.ipc.exit_status import describe_exit
from amqpworker.ipc.interpreter import command_of
from amqpworker.supervisor.health import check_address
from amqpworker.supervisor.launch import SupervisorConfig
from amqpworker.supervisor.pools import PoolSpec
from amqpworker.worker.dry_run import Checked
from amqpworker.worker.options import WorkerOptions

__all__ = ["check"]

# An end without an answer is seen this late where something that it has started holds the pipe.
STEP = 0.2
MOST_READ = 1 << 16


def check(setup: SupervisorConfig, as_json: bool) -> None:
    """
    Show what would run.

    Raises:
        ConfigError: something of it cannot run; all that is wrong is told, pool by pool.
    """
    if setup.health is not None:
        check_address(setup.health)
    found = [(spec, looked_at(spec)) for spec in setup.pools]
    named = len(found) > 1
    problems = [f"Pool {spec.name!r}: {one.problem}" if named else one.problem for spec, one in found if one.problem]
    if problems:
        raise ConfigError(" ".join(problems))
    if as_json:
        write_json({"health": setup.health, "pools": [described(spec, one) for spec, one in found]})
        return
    show(found, setup.health)
    for spec, one in found:
        for warning in one.warnings:
            print_error(f"Warning: {f'pool {spec.name!r}: ' if named else ''}{warning}")


def looked_at(spec: PoolSpec) -> Checked:
    """Return what a process of its own has found out about a pool; it and what it has started are ended in any case."""
    reading, writing = os.pipe()
    command = [*command_of("amqpworker.worker.dry_run"), json.dumps(spec.options), str(writing)]
    with open(reading, "rb", buffering=0) as pipe:
        try:
            process = subprocess.Popen(  # noqa: S603 - our own
                command, stdin=subprocess.DEVNULL, pass_fds=[writing], process_group=0
            )
        except OSError as error:
            return Checked(problem=f"No process can be started to import {spec.options['app']!r}: {error.strerror}.")
        finally:
            os.close(writing)
        try:
            found = answer_of(process, pipe, spec.start_timeout)
        finally:
            left = descendants_of(process.pid)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            terminate_all(lambda: alive_with_descendants(left), grace=0.0)
            process.wait()
    return found if isinstance(found, Checked) else Checked(problem=f"{spec.options['app']!r} {found}.")


def answer_of(process: subprocess.Popen[bytes], pipe: io.FileIO, patience: float) -> Checked | str:
    """Return the line that a process writes into a pipe, or why there is none."""
    until = time.monotonic() + patience
    line = b""
    while not line.endswith(b"\n"):
        # Before it is looked into the pipe: what it had written by then is read.
        code = process.poll()
        if select.select([pipe], [], [], STEP if code is None else 0)[0]:
            line += (read := pipe.read(MOST_READ) or b"")
            if read:
                continue
            # Its end of the pipe is closed: it has ended, or the app has closed all that it has not opened itself.
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(max(0.0, until - time.monotonic()))
        if code is not None:
            return f"cannot be imported: its process ended by {describe_exit(code)}"
        if time.monotonic() >= until:
            return f"is not imported within {patience:g} s: find what it waits for, or give more by --start-timeout"
    return Checked.model_validate_json(line)


def described(spec: PoolSpec, found: Checked) -> dict[str, Any]:
    """Return a pool as an object of JSON."""
    return {
        "name": spec.name,
        "app": spec.options["app"],
        "processes": spec.processes,
        "async_tasks": spec.options["async_tasks"],
        "isolated": WorkerOptions.model_validate_json(json.dumps(spec.options)).suspects,
        "drain_timeout": found.drain_timeout,
        "stall_timeout": spec.stall_timeout,
        "start_timeout": spec.start_timeout,
        "recycling": asdict(spec.recycling),
        "queues": [asdict(one) for one in found.queues],
        "warnings": list(found.warnings),
    }


def show(found: Sequence[tuple[PoolSpec, Checked]], health: str | None) -> None:
    """Print what would run as a table: a line for each queue."""
    made = table("pool", "app", "processes", "queue", "threads", "prefetch")
    for spec, one in found:
        pool = [printable(spec.name), printable(spec.options["app"]), str(spec.processes)]
        for serving in one.queues:
            threads = f"{serving.threads} of its own" if serving.own else str(serving.threads)
            made.add_row(*pool, printable(serving.queue), threads, str(serving.prefetch))
            pool = ["", "", ""]
    console().print(made)
    if health is not None:
        console().print(f"health: {printable(health)}")
