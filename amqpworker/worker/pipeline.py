"""
The path of a delivery, from its claim until it is settled: claim, admit, run, decide, settle.

Runner threads call `execute`, the event loop `execute_async`. An isolated process only runs (`TaskExecutor.run`): its worker
process claims and admits before, and settles after.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from amqpworker.ipc.recorder import RunSlot, key_of
from amqpworker.log.logger import get_logger, task_context
from amqpworker.model.message import Delivery
from amqpworker.model.outcome import AlreadyDone, Done, Outcome
from amqpworker.worker import outcomes
from amqpworker.worker.after_fork import exit_if_forked_child
from amqpworker.worker.context import Run
from amqpworker.worker.limits.limits import RunAbandoned
from amqpworker.worker.progress_reports import ProgressReports

if TYPE_CHECKING:
    from amqpworker.worker.executor import TaskExecutor
    from amqpworker.worker.isolation.isolation import Isolation
    from amqpworker.worker.settle import Settler
    from amqpworker.worker.stored_checks import StoredChecks

log = get_logger(__name__)

Settle: TypeAlias = Callable[[Delivery, Outcome, Run | None], None]


class Acceptance:
    """Which outcomes are still settled while the process ends: all, results only, or none."""

    __slots__ = ("failures", "results")

    def __init__(self) -> None:
        self.failures = True
        self.results = True

    def ignore_failures(self) -> None:
        """Settle results only: most likely a task fails because a resource that it uses has been closed."""
        self.failures = False

    def ignore_all(self) -> None:
        """Settle nothing: the messages are redelivered."""
        self.failures = self.results = False

    def accepts(self, outcome: Outcome) -> bool:
        """Return whether an outcome is to be settled."""
        return self.failures or (self.results and isinstance(outcome, Done | AlreadyDone))


class Pipeline:
    """Takes deliveries from their claim until they are settled; safe to use from many threads."""

    def __init__(
        self,
        executor: TaskExecutor,
        settler: Settler,
        isolation: Isolation,
        stored_checks: StoredChecks | None = None,
    ) -> None:
        self.executor = executor
        self._stored_checks = stored_checks
        self._settler = settler
        self._isolation = isolation
        self._process = os.getpid()
        if settler.storer is not None:
            executor.on_progress = ProgressReports(settler.note_running).report

    def execute(self, delivery: Delivery, slot: RunSlot, acceptance: Acceptance, isolated: bool = False) -> None:
        """Run a delivery and settle it: in an isolated process if it or its task is `isolated`, else in this thread."""
        if not delivery.channel.claim(delivery):
            return  # it was requeued, or its channel is lost
        run: Run | None = None
        try:
            admitted = self.executor.admit(delivery)
            if isinstance(admitted, Run):
                run = admitted
                task_context.set(run)
                refused = None if self._stored_checks is None else self._stored_checks.check(run)
                if refused is not None:
                    outcome = refused
                else:
                    slot.mark_running(key_of(delivery), run)
                    if run.registered.track:
                        self._settler.note_running(run)
                    call = self._isolation.run if isolated or run.registered.isolated else self.executor.call
                    outcome = call(run)
            else:
                outcome = admitted
        except RunAbandoned:
            task_context.set(None)
            return
        except BaseException as error:  # noqa: BLE001 - an error of our own must not leave a message unsettled
            outcome = outcomes.internal_error(delivery, error)
        exit_if_forked_child(self._process)
        slot.mark_free()
        if acceptance.failures or acceptance.accepts(outcome):
            self.settle(delivery, outcome, run)
        task_context.set(None)

    async def execute_async(
        self, delivery: Delivery, slots: list[RunSlot], acceptance: Acceptance, settle: Settle
    ) -> bool:
        """As `execute`, in the event loop with one of the free `slots`; `settle` settles it. False if it is not claimed."""
        if not (acceptance.results and delivery.channel.claim(delivery)):
            return False
        run: Run | None = None
        slot = slots.pop()
        try:
            admitted = self.executor.admit(delivery)
            if isinstance(admitted, Run):
                run = admitted
                task_context.set(run)
                refused = None if self._stored_checks is None else await self._stored_checks.check_async(run)
                if refused is not None:
                    outcome = refused
                else:
                    slot.mark_running(key_of(delivery), run)
                    if run.registered.track:
                        self._settler.note_running(run)
                    outcome = await self.executor.call_async(run)
            else:
                outcome = admitted
        except RunAbandoned:
            return True
        except BaseException as error:  # noqa: BLE001 - as above
            outcome = outcomes.internal_error(delivery, error)
        exit_if_forked_child(self._process)
        slot.mark_free()
        slots.append(slot)
        if acceptance.failures or acceptance.accepts(outcome):
            settle(delivery, outcome, run)
        return True

    def close(self) -> None:
        """End the threads that it has."""
        if self._stored_checks is not None:
            self._stored_checks.close()

    def settle(self, delivery: Delivery, outcome: Outcome, run: Run | None = None) -> None:
        """Settle a delivery."""
        self._settler.settle(delivery, outcome, run)
