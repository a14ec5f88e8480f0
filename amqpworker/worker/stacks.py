"""
The stacks of all threads of this process, for the log, read without harm.

Decides how the stacks are read: under the interpreter's lock, by `sys._current_frames`. `faulthandler` reads them without that
lock, which sometimes causes a segmentation fault, so it is only for processes that are killed right after.
A process whose interpreter hangs writes nothing here.
"""

from __future__ import annotations

import sys
import threading
import traceback

from amqpworker.lifecycle import ThreadLimitReached, start_thread
from amqpworker.log.logger import get_logger

log = get_logger(__name__)


class StackWriter:
    """Writes stacks to the log in a thread of its own: the log may be slow, and the caller must not wait for it."""

    def __init__(self) -> None:
        self._writing: threading.Thread | None = None

    def write(self) -> None:
        """Have the stacks of all threads written, unless this is in progress already. One thread calls this."""
        if self._writing is None or not self._writing.is_alive():
            writing = threading.Thread(target=_write_stacks, name="amqpworker-stacks", daemon=True)
            try:
                start_thread(writing)
            except ThreadLimitReached as error:  # the caller continues: it reads the pipe from its parent
                log.warning("stacks_not_written", reason=error.strerror)
            else:
                self._writing = writing


def _write_stacks() -> None:
    for name, stack in stacks():
        log.info("thread_stack", thread=name, stack=stack)


def stacks() -> list[tuple[str, str]]:
    """Return the name of each other thread, and its stack as a traceback shows it."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    own = threading.get_ident()
    # Only names and numbers are kept of the frames: a frame that is held keeps its variables alive.
    places = {
        thread: [
            (frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in traceback.walk_stack(innermost)
        ]
        for thread, innermost in sys._current_frames().items()  # noqa: SLF001 - documented, and made for this
        if thread != own
    }
    return [(names.get(thread) or str(thread), _formatted(found)) for thread, found in places.items()]


def stack_of(thread: int) -> str:
    """Return where a thread is, as a traceback shows it; "" if it is gone."""
    frame = sys._current_frames().get(thread)  # noqa: SLF001 - as above
    return "".join(traceback.format_stack(frame)) if frame is not None else ""


def _formatted(places: list[tuple[str, int, str]]) -> str:
    """Return the places of a stack, the innermost first, as a traceback shows them."""
    frames = [traceback.FrameSummary(file, line, name, lookup_line=False) for file, line, name in reversed(places)]
    return "".join(traceback.StackSummary.from_list(frames).format()).rstrip()
