"""
The end of a child that a task forked and let return: it must not go on as a second runner of its parent's messages.

Decides nothing else. A child that ends by itself, as `multiprocessing` has it, never comes here.
"""

from __future__ import annotations

import os
from typing import NoReturn

__all__ = ["leave_if_forked"]

TOLD = (
    b"amqpworker: a child that a task made by os.fork() came back from the task; it ends here (os._exit it yourself)\n"
)


def leave_if_forked(process: int) -> None:
    """Return in the process with this id; end any other, without cleaning up after its parent."""
    if os.getpid() != process:
        _leave()


def _leave() -> NoReturn:
    try:
        os.write(2, TOLD)
    finally:
        os._exit(1)
