"""
One private node for all processes of pytest-xdist.

Decides that the first process which needs it starts it, and that the last one which uses it ends it, however they end.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amqpworker.testing.node import Node


@contextmanager
def shared_node(folder: Path) -> Iterator[Node]:
    """Use the node of a folder during a block, together with other processes; raises ConfigError if it does not start."""
    folder.mkdir(parents=True, exist_ok=True)
    node = Node(folder / "node")
    users = folder / "users"
    with users.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        node.start()
        node.tie(users)
        try:
            yield node
        finally:
            if _is_last(lock.fileno()):
                node.discard()
                shutil.rmtree(node.folder / "data", ignore_errors=True)  # its logs stay, to see what happened


def _is_last(lock: int) -> bool:
    """Return whether no other process uses the node any more; then none can begin to before the file is closed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
