"""
What the exit code of a worker process means to its supervisor: a task may end its process by any code (`os._exit`).

Pure. Decides when a process will never run, and what its end during a stop means for the exit code of the pool.
"""

from __future__ import annotations

from amqpworker.ipc.report import ABANDONED, MISCONFIGURED, STOPPED
from amqpworker.supervisor.slots import Process

__all__ = ["never_runs", "pool_code"]


def never_runs(process: Process, code: int) -> bool:
    """Whether a process has ended because of a mistake in the configuration: only one that has reported it."""
    return process.misconfigured and code == MISCONFIGURED


def pool_code(process: Process, code: int) -> int:
    """
    Return what the end of a process during a stop means for the pool: a code of its own, never one of a task.

    A process that was still starting, or could not run, has nothing to abandon.
    """
    idle = process.drain_timeout is None or process.misconfigured
    return STOPPED if code == STOPPED or idle else ABANDONED
