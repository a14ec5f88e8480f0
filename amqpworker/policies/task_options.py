"""The options of a task that workers run, checked; each is decided by a module of its own."""

from __future__ import annotations

from dataclasses import dataclass

from amqpworker.policies.result_options import ResultOptions
from amqpworker.policies.retry import Policy
from amqpworker.policies.time_limit import TimeLimit
from amqpworker.signature.versions import Upgrade


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """
    The options of a task that workers run.

    `throws` are the exceptions that it expects. `upgrade` gets the arguments of messages with an older `version`.
    """

    policy: Policy
    results: ResultOptions
    time_limit: TimeLimit
    isolated: bool
    version: int = 1
    upgrade: Upgrade | None = None
    throws: tuple[type[Exception], ...] = ()
