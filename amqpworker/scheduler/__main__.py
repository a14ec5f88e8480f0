"""
`python -m amqpworker.scheduler`: the program of a scheduler process, which a supervisor starts.

It starts as a worker process does (`worker.process_start`), then runs `main_loop` until a signal.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from amqpworker.errors import ConfigError
from amqpworker.ipc.ending import exit_code_of, exit_now
from amqpworker.ipc.interpreter import version_mismatch
from amqpworker.ipc.pipes import Reporter
from amqpworker.log.logger import get_logger
from amqpworker.scheduler.scheduler_assembly import assemble
from amqpworker.scheduler.scheduler_options import SchedulerOptions
from amqpworker.worker.main_thread import misconfigured
from amqpworker.worker.process_start import NotStarted, ProcessStart

# Not `__name__`, which is `__main__` here.
log = get_logger("amqpworker.scheduler")


def main(arguments: Sequence[str]) -> int:
    """Run a scheduler process, and return its exit code."""
    if reason := version_mismatch(arguments):
        return misconfigured(ConfigError(reason), Reporter(int(arguments[3])))
    start = ProcessStart.prepare(arguments, SchedulerOptions, lambda _: 0)
    options = start.options
    if options.file is not None:
        # The app's import may change the current folder.
        options = options.model_copy(update={"file": str(Path(options.file).absolute())})
    try:
        scheduler = start.build(options.app, lambda app: assemble(app, options, start.recorder, start.reporter), log)
    except NotStarted as error:
        return error.code
    start.signals.check("the app's import")
    start.signals.set(scheduler.on_signal)
    start.parent.subscribe(lambda *_: None, lambda: None, scheduler.on_parent_gone)
    with closing(scheduler):
        return scheduler.run()


if __name__ == "__main__":
    exit_now(exit_code_of(lambda: main(sys.argv[1:])))
