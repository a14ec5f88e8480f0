"""
The pipe from the parent of a worker process: it carries commands, and it is closed when the parent ends.

Decides what happens then: a process that has nothing to drain yet ends at once, any other drains. A process that
hangs with the interpreter's lock held does not notice: its supervisor's orphan reaper ends it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

from amqpworker.ipc.exit_status import STOPPED
from amqpworker.ipc.pipes import BareCommand, Command, parse_commands
from amqpworker.lifecycle import start_thread
from amqpworker.log.logger import get_logger
from amqpworker.worker.stacks import StackWriter

log = get_logger(__name__)

READ_BYTES = 65536

OnSuspectAnswer: TypeAlias = Callable[[Sequence[str], bool], object]


class ParentPipe:
    """Reads the pipe with this descriptor in a thread of its own; `None` means that there is no parent."""

    def __init__(self, descriptor: int | None) -> None:
        self._on_suspect_answer: OnSuspectAnswer | None = None
        self._on_end_overdue: Callable[[], None] | None = None
        self._on_end: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._stacks = StackWriter()
        if descriptor is not None:
            # Processes that tasks start must not inherit it.
            os.set_inheritable(descriptor, False)
            reading = threading.Thread(target=self._read, args=(descriptor,), name="amqpworker-parent", daemon=True)
            start_thread(reading)

    def subscribe(
        self, on_suspect_answer: OnSuspectAnswer, on_end_overdue: Callable[[], None], on_end: Callable[[], None]
    ) -> None:
        """
        Pass on the parent's answers (keys of messages, and whether these are suspects) and its commands from now on.

        `on_end` is called when the pipe is closed. If it is closed before this call, the process just ends.
        """
        with self._lock:
            self._on_suspect_answer, self._on_end_overdue, self._on_end = on_suspect_answer, on_end_overdue, on_end

    def _read(self, descriptor: int) -> None:
        unread = b""
        try:
            while data := os.read(descriptor, READ_BYTES):
                commands, unread = parse_commands(unread + data)
                for command in commands:
                    self._on_command(command)
        except OSError as error:
            log.debug("parent_pipe_error", error=repr(error))
        with self._lock:
            if self._on_end is None:
                log.warning("supervisor_lost", effect="it ends: no task has started")
                os._exit(STOPPED)
            self._on_end()

    def _on_command(self, command: Command) -> None:
        if command is BareCommand.WRITE_STACKS:
            self._stacks.write()
        elif command is BareCommand.END_OVERDUE:
            if self._on_end_overdue is not None:
                self._on_end_overdue()
        elif self._on_suspect_answer is not None:
            self._on_suspect_answer(command.keys, command.suspect)
