"""
The command line of a worker or scheduler process: a supervisor builds it, and the process reads it.

Decides the order of the arguments; the first is always the version of the parent (`interpreter`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

from amqpworker.ipc.interpreter import VERSION_ARGUMENT, command_of, without_version


class WorkerArguments(NamedTuple):
    """
    The arguments after the version; a process without a supervisor has no descriptors.

    * `options`: the options, as JSON.
    * `commands`: the pipe for commands from the parent. If it is closed, the parent has ended, and the process stops.
    * `reports`: the pipe for reports to the parent.
    * `memory`: the memory of the flight recorder.
    """

    options: str
    commands: int | None = None
    reports: int | None = None
    memory: int | None = None

    def command(self, program: str) -> list[str]:
        """Return the command that starts the process; `program` is the name of its module."""
        return [*command_of(program), VERSION_ARGUMENT, *map(str, self)]

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> Self:
        """Return what a process was started with."""
        options, *descriptors = without_version(arguments)
        return cls(options, *map(int, descriptors))
