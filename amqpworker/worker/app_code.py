"""
The app's own code in a worker process: its lifespan, the threads that run its tasks, and the processes that these start.

Decides in which order they end: tasks are abandoned first, then what they use is closed, then their processes are ended.
"""

from __future__ import annotations

from amqpworker.worker.isolation.isolation import SHUTDOWN_GRACE
from amqpworker.worker.lifespan import Lifespan
from amqpworker.worker.service import Service
from amqpworker.worker.task_processes import TaskProcesses
from amqpworker.worker.threads import RunnerThreads


class AppCode(Service):
    """Runs tasks; its lifespan is entered by `WorkerProcess`, which ends if that fails."""

    def __init__(self, lifespan: Lifespan, runners: RunnerThreads) -> None:
        self._lifespan = lifespan
        self._runners = runners

    def start(self) -> None:
        """Start the threads; raises ThreadLimitReached if there is no room for all of them."""
        self._runners.start()

    def stop(self, grace: float) -> None:
        """Abandon the running tasks, exit the lifespan, and end the threads."""
        self._runners.abandon()
        self._lifespan.leave(grace or SHUTDOWN_GRACE)
        self._runners.stop()


class ChildrenOfTasks(Service):
    """
    The processes that tasks have started; it ends after `AppCode`.

    It is a service of its own since a second Ctrl-C may arrive while the lifespan exits.
    """

    def __init__(self, children: TaskProcesses, runners: RunnerThreads, supervised: bool) -> None:
        self._children = children
        self._runners = runners
        self._supervised = supervised

    def beat(self, now: float) -> None:
        """Reap child processes that nothing waits for."""
        self._children.tidy(now)

    def stop(self, grace: float) -> None:
        """End them; after a second Ctrl-C the supervisor does that, after this process."""
        if grace or not self._supervised:
            self._children.end(self._runners.discard_results)
