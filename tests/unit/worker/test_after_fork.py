"""Forked children of a worker begin with default signals, also for what is sent to them before they have begun."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, signal
from amqpworker.worker.after_fork import default_signals_in_forks

heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))
signal.signal(signal.SIGINT, lambda *_: heard.append("SIGINT"))

# Before the default handlers are there: what is registered first is called first in a child.
early = False
os.register_at_fork(after_in_child=lambda: early and os.kill(os.getpid(), signal.SIGTERM))
default_signals_in_forks((signal.SIGTERM, signal.SIGINT))

def child(work):
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(work() or 0)
        except KeyboardInterrupt:
            os._exit(5)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def terminates(number):
    os.kill(os.getpid(), number)
    return 1

assert child(lambda: terminates(signal.SIGTERM)) == -signal.SIGTERM
assert child(lambda: terminates(signal.SIGINT)) == 5
assert child(lambda: child(lambda: terminates(signal.SIGTERM)) + signal.SIGTERM) == 0
early = True
assert child(lambda: 1) == -signal.SIGTERM
early = False
assert child(lambda: len(signal.pthread_sigmask(signal.SIG_BLOCK, []))) == 0
assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()

# A handler of the app is inherited, as in any program.
signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
assert child(lambda: terminates(signal.SIGTERM)) == 9
signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))
os.kill(os.getpid(), signal.SIGINT)
assert heard == ["SIGINT"], heard
print("ok")
"""


def test_a_forked_child_has_default_signals_and_loses_none_that_is_sent_to_it_at_once() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "ok\n", done.stderr
