"""
The program of a worker process: prepare the process, load the app, run, and end.

Decides how it ends; `process_start` decides what is ready before any code of the app runs.
"""

from __future__ import annotations

import atexit
import signal
import sys
from collections.abc import Sequence

from amqpworker.errors import ConfigError
from amqpworker.ipc.ending import exit_code_of, exit_now
from amqpworker.ipc.exit_status import STOPPED
from amqpworker.ipc.interpreter import version_mismatch
from amqpworker.ipc.pipes import Reporter
from amqpworker.ipc.stray_signals import STRAY
from amqpworker.log.logger import get_logger
from amqpworker.worker.after_fork import default_signals_in_forks
from amqpworker.worker.assembly import ProcessSetup, assemble, current_folder
from amqpworker.worker.main_thread import misconfigured
from amqpworker.worker.options import WorkerOptions
from amqpworker.worker.process_start import NotStarted, ProcessStart
from amqpworker.worker.task_processes import TaskProcesses

# Not `__name__`, which is `__main__` here.
log = get_logger("amqpworker.worker.process")


def main(arguments: Sequence[str]) -> int:
    """Run a worker process, and return its exit code."""
    if reason := version_mismatch(arguments):
        return misconfigured(ConfigError(reason), Reporter(int(arguments[3])))
    folder = current_folder()
    start = ProcessStart.prepare(arguments, WorkerOptions, lambda options: options.slots)
    setup = ProcessSetup(start.recorder, start.reporter, start.signals, folder, TaskProcesses())
    try:
        worker = start.build(start.options.app, lambda app: assemble(app, start.options, setup), log)
    except NotStarted as error:
        return error.code
    start.signals.check("the app's import")
    start.signals.set(worker.on_signal)
    default_signals_in_forks((signal.SIGTERM, signal.SIGINT, *STRAY))
    start.parent.subscribe(worker.receiver.on_suspect_answer, worker.on_end_overdue, worker.on_parent_gone)
    code = worker.run()
    if not worker.stop_now:
        setup.children.end()
    # This process ends by itself: no task that still runs has crashed it.
    start.recorder.clear()
    return code


if __name__ == "__main__":
    CODE = exit_code_of(lambda: main(sys.argv[1:]))
    if CODE == STOPPED:
        # Runs what user code has registered for the interpreter's exit, but only if nothing of that code still runs.
        atexit._run_exitfuncs()  # noqa: SLF001 - os._exit does not, and sys.exit would wait for any thread
    exit_now(CODE)
