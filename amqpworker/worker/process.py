"""
The program of a worker process: prepare the process, load the app, run, and end.

Decides what is ready before any code of the app runs, which may take forever or change the process, and which error of the
app's import is final.
"""

from __future__ import annotations

import atexit
import faulthandler
import signal
import sys
from collections.abc import Sequence

from amqpworker.errors import AmqpWorkerError, ConfigError
from amqpworker.ipc.ending import exit_code_of, exit_now
from amqpworker.ipc.exit_status import FAILED, STOPPED
from amqpworker.ipc.interpreter import version_mismatch
from amqpworker.ipc.pipes import Reporter
from amqpworker.ipc.recorder import Recorder, map_memory
from amqpworker.ipc.stray_signals import DUMP_SIGNAL, STRAY, ignore_stray
from amqpworker.ipc.worker_arguments import WorkerArguments
from amqpworker.log.format import configure, log_uncaught
from amqpworker.log.logger import get_logger
from amqpworker.worker.after_fork import default_signals_in_forks
from amqpworker.worker.app_loader import import_error, load_app, may_pass
from amqpworker.worker.assembly import ProcessSetup, assemble, current_folder
from amqpworker.worker.main_thread import misconfigured
from amqpworker.worker.options import WorkerOptions
from amqpworker.worker.parent import ParentPipe
from amqpworker.worker.signals import OwnSignals
from amqpworker.worker.stdout import print_by_line
from amqpworker.worker.task_processes import TaskProcesses

# Not `__name__`, which is `__main__` here.
log = get_logger("amqpworker.worker.process")


def main(arguments: Sequence[str]) -> int:
    """Run a worker process, and return its exit code."""
    if reason := version_mismatch(arguments):
        return misconfigured(ConfigError(reason), Reporter(int(arguments[3])))
    given = WorkerArguments.parse(arguments)
    options = WorkerOptions.model_validate_json(given.options)
    reporter = Reporter(given.reports)
    recorder = Recorder(options.slots, None if given.memory is None else map_memory(given.memory))
    # By a signal, since it works where Python itself hangs: the parent sends it before it kills.
    faulthandler.register(DUMP_SIGNAL, all_threads=True)
    ignore_stray()
    signals, folder = OwnSignals(), current_folder()
    print_by_line()
    configure(options.log_level, options.log_json)
    log_uncaught()
    setup = ProcessSetup(recorder, reporter, signals, folder, TaskProcesses())
    # Before the app is imported, which may take forever.
    parent = ParentPipe(given.commands)
    try:
        worker = assemble(load_app(options.app), options, setup)
    except (Exception, SystemExit) as error:
        passes = may_pass(error)
        if isinstance(error, AmqpWorkerError) and not passes:
            return misconfigured(error, reporter)
        log.error("app_not_imported", app=options.app, exc_info=error)
        # After an error that may pass another process tries it again.
        return FAILED if passes else misconfigured(import_error(options.app, error), reporter)
    signals.check("the app's import")
    signals.set(worker.on_signal)
    default_signals_in_forks((signal.SIGTERM, signal.SIGINT, *STRAY))
    parent.subscribe(worker.receiver.on_suspect_answer, worker.on_end_overdue, worker.on_parent_gone)
    code = worker.run()
    if not worker.stop_now:
        setup.children.end()
    # This process ends by itself: no task that still runs has crashed it.
    recorder.clear()
    return code


if __name__ == "__main__":
    CODE = exit_code_of(lambda: main(sys.argv[1:]))
    if CODE == STOPPED:
        # Runs what user code has registered for the interpreter's exit, but only if nothing of that code still runs.
        atexit._run_exitfuncs()  # noqa: SLF001 - os._exit does not, and sys.exit would wait for any thread
    exit_now(CODE)
