"""
Children that a task forks: they have the default signal handlers, and none of them continues its parent's loop over messages.

A child that ends by itself, as those of `multiprocessing` do, never returns from its task to `exit_if_forked_child`.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from collections.abc import Iterable

from amqpworker.ipc.stray_signals import DUMP_SIGNAL

MESSAGE = (
    b"amqpworker: a child that a task made by os.fork() came back from the task; it ends here (os._exit it yourself)\n"
)


def default_signals_in_forks(numbers: Iterable[signal.Signals]) -> None:
    """
    Replace the present handlers by the default ones in each child that this process forks.

    A handler that other code sets later is inherited, as in any program. A signal that arrives before the child has the
    default handlers is delivered when it has them.
    """
    ours = {number: signal.getsignal(number) for number in numbers}
    blocked = threading.local()

    def block() -> None:
        blocked.before = signal.pthread_sigmask(signal.SIG_BLOCK, ours)

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked.before)

    def reset() -> None:
        for number, handler in ours.items():
            if signal.getsignal(number) == handler:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        faulthandler.unregister(DUMP_SIGNAL)
        unblock()

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=reset)


def exit_if_forked_child(process: int) -> None:
    """Return if this process has this id; else end it, without cleaning up after its parent."""
    if os.getpid() != process:
        try:
            os.write(2, MESSAGE)
        finally:
            os._exit(1)
