"""
`amqpworker worker --check` and `amqpworker scheduler --check`: what would run, without running it.

Decides how it is shown. Each pool's app is imported in a process of its own (`worker.dry_run`, `scheduler.schedule_check`).
"""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TypeAlias

from amqpworker.cli.output import console, table, write_json
from amqpworker.cli.schedule_listing import in_utc
from amqpworker.errors import ConfigError
from amqpworker.ipc.descendants import alive_with_descendants, descendants_of, terminate_all
from amqpworker.ipc.exit_status import describe_exit
from amqpworker.ipc.interpreter import command_of
from amqpworker.log.terminal import print_error, printable
from amqpworker.model.headers import time_of
from amqpworker.scheduler.schedule_check import CheckedSchedules
from amqpworker.supervisor.launch import SupervisorConfig
from amqpworker.supervisor.pools import PoolSpec, ProcessKind
from amqpworker.worker.dry_run import Checked
from amqpworker.worker.options import WorkerOptions

# How late the end of a process is noticed if another process, which it has started, keeps the pipe open.
POLL_INTERVAL = 0.2
READ_SIZE = 1 << 16

Result: TypeAlias = Checked | CheckedSchedules
CHECKS: Mapping[ProcessKind, tuple[str, type[Checked | CheckedSchedules]]] = {
    "worker": ("amqpworker.worker.dry_run", Checked),
    "scheduler": ("amqpworker.scheduler.schedule_check", CheckedSchedules),
}


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
        shown = {kind: [_as_object(*one) for one in found if one[0].kind == kind] for kind in CHECKS}
        scheduler = next(iter(shown["scheduler"]), None)
        write_json({"health": config.health, "pools": shown["worker"], "scheduler": scheduler})
        return
    _print_tables(found, config.health)
    for spec, checked in found:
        for warning in checked.warnings:
            print_error(f"Warning: {f'pool {spec.name!r}: ' if named else ''}{warning}")


def dry_run(spec: PoolSpec) -> Result:
    """Return what a process of its own found out about a pool; afterwards it and the processes it started are killed."""
    program, result = CHECKS[spec.kind]
    reading, writing = os.pipe()
    command = [*command_of(program), json.dumps(spec.options), str(writing)]
    with open(reading, "rb", buffering=0) as pipe:
        try:
            process = subprocess.Popen(  # noqa: S603 - our own
                command, stdin=subprocess.DEVNULL, pass_fds=[writing], process_group=0
            )
        except OSError as error:
            return result(problem=f"Cannot start a process to import {spec.options['app']!r}: {error.strerror}.")
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
    if isinstance(found, str):
        return result(problem=f"{spec.options['app']!r} {found}.")
    return result.model_validate_json(found)


def _read_answer(process: subprocess.Popen[bytes], pipe: io.FileIO, timeout: float) -> bytes | str:
    """Return the line that a process writes into a pipe, or (as a `str`) why there is none."""
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
    return line


def _as_object(spec: PoolSpec, found: Result) -> dict[str, Any]:
    if isinstance(found, CheckedSchedules):
        options = {name: spec.options[name] for name in ("name", "app", "file", "stall_timeout", "start_timeout")}
        return {**options, **found.model_dump(exclude={"problem"})}
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


def _print_tables(found: Sequence[tuple[PoolSpec, Result]], health: str | None) -> None:
    rows = table("pool", "app", "processes", "queue", "threads", "prefetch")
    for spec, checked in found:
        if isinstance(checked, CheckedSchedules):
            continue
        pool = [printable(spec.name), printable(spec.options["app"]), str(spec.processes)]
        for serving in checked.queues:
            threads = f"{serving.threads} of its own" if serving.own else str(serving.threads)
            rows.add_row(*pool, printable(serving.queue), threads, str(serving.prefetch))
            pool = ["", "", ""]
    if rows.row_count:
        console().print(rows)
    for spec, checked in found:
        if isinstance(checked, CheckedSchedules):
            _print_schedules(spec, checked)
    if health is not None:
        console().print(f"health: {printable(health)}")


def _print_schedules(spec: PoolSpec, checked: CheckedSchedules) -> None:
    title = f"scheduler {printable(spec.options['name'])} ({printable(spec.options['app'])})"
    moments = [time_of(one.next) for one in checked.schedules]
    following = ["never" if moment is None else in_utc(moment) for moment in moments]
    width = max(map(len, ["next", *following]))
    rows = table("schedule", "task", "queue", "times", "next", title=title, widths={"next": width})
    for one, then in zip(checked.schedules, following, strict=True):
        rows.add_row(*map(printable, (one.name, one.task, one.queue, one.timing, then)))
    console().print(rows)
