"""
`python -m amqpworker.scheduler`: the program of a scheduler process, which a supervisor starts.

Decides what is ready before any code of the app runs, which may take forever or change the process, and which error of the
app's import is final.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Sequence

from amqpworker.errors import AmqpWorkerError, ConfigError
from amqpworker.ipc.ending import exit_code_of, exit_now
from amqpworker.ipc.exit_status import FAILED
from amqpworker.ipc.interpreter import version_mismatch
from amqpworker.ipc.pipes import Reporter
from amqpworker.ipc.recorder import Recorder, map_memory
from amqpworker.ipc.stray_signals import DUMP_SIGNAL, ignore_stray
from amqpworker.ipc.worker_arguments import WorkerArguments
from amqpworker.log.format import configure, log_uncaught
from amqpworker.log.logger import get_logger
from amqpworker.scheduler.scheduler_assembly import assemble
from amqpworker.scheduler.scheduler_options import SchedulerOptions
from amqpworker.worker.app_loader import import_error, load_app, may_pass
from amqpworker.worker.main_thread import misconfigured
from amqpworker.worker.parent import ParentPipe
from amqpworker.worker.signals import OwnSignals
from amqpworker.worker.stdout import print_by_line

# Not `__name__`, which is `__main__` here.
log = get_logger("amqpworker.scheduler")


def main(arguments: Sequence[str]) -> int:
    """Run a scheduler process, and return its exit code."""
    if reason := version_mismatch(arguments):
        return misconfigured(ConfigError(reason), Reporter(int(arguments[3])))
    given = WorkerArguments.parse(arguments)
    options = SchedulerOptions.model_validate_json(given.options)
    reporter = Reporter(given.reports)
    recorder = Recorder(0, None if given.memory is None else map_memory(given.memory))
    faulthandler.register(DUMP_SIGNAL, all_threads=True)
    ignore_stray()
    signals = OwnSignals()
    print_by_line()
    configure(options.log_level, options.log_json)
    log_uncaught()
    parent = ParentPipe(given.commands)
    try:
        scheduler = assemble(load_app(options.app), options, recorder, reporter)
    except (Exception, SystemExit) as error:
        passes = may_pass(error)
        if isinstance(error, AmqpWorkerError) and not passes:
            return misconfigured(error, reporter)
        log.error("app_not_imported", app=options.app, exc_info=error)
        # After an error that may pass another process tries it again.
        return FAILED if passes else misconfigured(import_error(options.app, error), reporter)
    signals.check("the app's import")
    signals.set(scheduler.on_signal)
    parent.subscribe(lambda *_: None, lambda: None, scheduler.on_parent_gone)
    return scheduler.run()


if __name__ == "__main__":
    exit_now(exit_code_of(lambda: main(sys.argv[1:])))
