"""
How a worker process or a scheduler process starts: prepared before any code of the app runs, then the app is loaded.

Decides the order, since the app's import may take forever or change the process, and which error of it is final.
"""

from __future__ import annotations

import faulthandler
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from amqpworker.app import App
from amqpworker.errors import AmqpWorkerError
from amqpworker.ipc.exit_status import FAILED
from amqpworker.ipc.pipes import Reporter
from amqpworker.ipc.recorder import Recorder, map_memory
from amqpworker.ipc.stray_signals import DUMP_SIGNAL, ignore_stray
from amqpworker.ipc.worker_arguments import WorkerArguments
from amqpworker.log.format import configure, log_uncaught
from amqpworker.log.logger import Logger
from amqpworker.worker.app_loader import import_error, load_app, may_pass
from amqpworker.worker.main_thread import misconfigured
from amqpworker.worker.options import LogOptions
from amqpworker.worker.parent import ParentPipe
from amqpworker.worker.signals import OwnSignals
from amqpworker.worker.stdout import print_by_line

Options = TypeVar("Options", bound=LogOptions)
Built = TypeVar("Built")


class NotStarted(Exception):
    """The app could not be loaded; the process ends with this exit `code`."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class ProcessStart(Generic[Options]):
    """What a process has before any code of the app runs."""

    options: Options
    reporter: Reporter
    recorder: Recorder
    signals: OwnSignals
    parent: ParentPipe

    @classmethod
    def prepare(cls, arguments: Sequence[str], model: type[Options], slots: Callable[[Options], int]) -> Self:
        """Prepare the process that was started with these arguments: `slots` is how many tasks it runs at once."""
        given = WorkerArguments.parse(arguments)
        options = model.model_validate_json(given.options)
        reporter = Reporter(given.reports)
        recorder = Recorder(slots(options), None if given.memory is None else map_memory(given.memory))
        # By a signal, since it works where Python itself hangs: the parent sends it before it kills.
        faulthandler.register(DUMP_SIGNAL, all_threads=True)
        ignore_stray()
        signals = OwnSignals()
        print_by_line()
        configure(options.log_level, options.log_json)
        log_uncaught()
        # Before the app is imported, which may take forever.
        return cls(options, reporter, recorder, signals, ParentPipe(given.commands))

    def build(self, app: str, assemble: Callable[[App], Built], log: Logger) -> Built:
        """Load the app, and return what `assemble` makes of it; raises NotStarted after a log line or report about an error."""
        try:
            return assemble(load_app(app))
        except (Exception, SystemExit) as error:
            passes = may_pass(error)
            if isinstance(error, AmqpWorkerError) and not passes:
                raise NotStarted(misconfigured(error, self.reporter)) from error
            log.error("app_not_imported", app=app, exc_info=error)
            # After an error that may pass another process tries it again.
            raise NotStarted(FAILED if passes else misconfigured(import_error(app, error), self.reporter)) from error
