"""
The leash of a worker process: a pipe that its parent answers by, and holds open: its end tells that the parent is gone.

Decides what happens then: before there is anything to drain the process ends at once, later it drains. A process that
hangs with the interpreter's lock held does not notice: it is ended by its supervisor's heir.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

from amqpworker.ipc.report import STOPPED, Answer, Leave, WriteStacks, verdicts_in
from amqpworker.lifecycle import start_thread
from amqpworker.log.logger import get_logger
from amqpworker.worker.stacks import StackWriter

__all__ = ["ParentPipe"]

# Not `__name__`: its lines are the process's.
log = get_logger("amqpworker.worker.process")

READ_BYTES = 65536

OnVerdict: TypeAlias = Callable[[Sequence[str], bool], object]


class ParentPipe:
    """
    Reads the descriptor of a leash in a thread of its own; `None` is none.

    Raises:
        NoThread: there is no room for it.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._on_verdict: OnVerdict | None = None
        self._on_leave: Callable[[], None] | None = None
        self._drain: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._stacks = StackWriter()
        if descriptor is not None:
            # What a task starts must not hold it.
            os.set_inheritable(descriptor, False)
            reading = threading.Thread(target=self._read, args=(descriptor,), name="amqpworker-parent", daemon=True)
            start_thread(reading)

    def subscribe(self, on_verdict: OnVerdict, on_leave: Callable[[], None], drain: Callable[[], None]) -> None:
        """
        From now on hand on what the parent answers (keys of messages, and whether these are suspects), and what it asks for.

        Drain at its end; until now nothing was asked, and the process would just end.
        """
        with self._lock:
            self._on_verdict, self._on_leave, self._drain = on_verdict, on_leave, drain

    def _read(self, descriptor: int) -> None:
        unread = b""
        try:
            while data := os.read(descriptor, READ_BYTES):
                verdicts, unread = verdicts_in(unread + data)
                for verdict in verdicts:
                    self._hand_on(verdict)
        except OSError as error:
            log.debug("parent_pipe_error", error=repr(error))
        with self._lock:
            if self._drain is None:
                log.warning("supervisor_lost", effect="ending: nothing has begun")
                os._exit(STOPPED)
            self._drain()

    def _hand_on(self, answer: Answer) -> None:
        if isinstance(answer, WriteStacks):
            self._stacks.write()
        elif isinstance(answer, Leave):
            if self._on_leave is not None:
                self._on_leave()
        elif self._on_verdict is not None:
            self._on_verdict(answer.keys, answer.suspect)
