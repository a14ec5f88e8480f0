"""A node that several processes of pytest-xdist share: it ends with the last of them, also if each of them is killed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from amqpworker.testing import Node, wait_until

USER = """
import sys
from pathlib import Path
from amqpworker.testing.shared_node import shared_node

with shared_node(Path(sys.argv[1])) as node:
    print(node.pid, flush=True)
    sys.stdin.read()
"""


class User:
    """A process that uses the node until its input ends."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.node = int(process.stdout.readline())

    def leave(self) -> None:
        self.process.communicate(timeout=30)
        assert self.process.returncode == 0

    def die(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=30)


@contextmanager
def user(folder: Path) -> Iterator[User]:
    command = [sys.executable, "-c", USER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield User(process)
        finally:
            process.kill()


def test_a_node_ends_with_its_last_user_however_they_end(tmp_path: Path) -> None:
    node = Node(tmp_path / "node")
    with ExitStack() as stack:
        stack.callback(node.discard)
        first, second = (stack.enter_context(user(tmp_path)) for _ in range(2))
        assert first.node == second.node == node.pid
        first.die()  # which has started it
        third = stack.enter_context(user(tmp_path))
        assert third.node == second.node
        second.leave()
        assert node.status().running
        third.die()
        wait_until(lambda: not node.status().running)

        last = stack.enter_context(user(tmp_path))
        assert node.status().running
        last.leave()
        assert not node.status().running
