"""
`amqpworker worker --check`: what would run, without running it.

Decides how it is shown. The apps are imported by processes of their own (`worker.check`), one for each pool.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from amqpworker.cli.screen import complain, console, printable, table, write_json
from amqpworker.errors import ConfigError
from amqpworker.supervisor.health import check_address
from amqpworker.supervisor.launch import Setup
from amqpworker.supervisor.pools import PoolSpec
from amqpworker.worker.check import Checked
from amqpworker.worker.wording import how_it_ended

__all__ = ["check"]


def check(setup: Setup, as_json: bool) -> None:
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
            complain(f"Warning: {f'pool {spec.name!r}: ' if named else ''}{warning}")


def looked_at(spec: PoolSpec) -> Checked:
    """Return what a process of its own has found out about a pool."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "amqpworker.worker.check", json.dumps(spec.options), str(writing)]
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[writing])  # noqa: S603 - our own
    finally:
        os.close(writing)
    with open(reading, "rb") as pipe, process:
        found = pipe.read()
    if not found:
        how = how_it_ended(process.returncode)
        return Checked(problem=f"{spec.options['app']!r} cannot be imported: its process ended by {how}.")
    return Checked.model_validate_json(found)


def described(spec: PoolSpec, found: Checked) -> dict[str, Any]:
    """Return a pool as an object of JSON."""
    return {
        "name": spec.name,
        "app": spec.options["app"],
        "processes": spec.processes,
        "async_tasks": spec.options["async_tasks"],
        "drain_timeout": found.drain_timeout,
        "stall_timeout": spec.stall_timeout,
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
