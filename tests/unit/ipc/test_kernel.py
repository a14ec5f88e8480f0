"""What replaces system calls that are missing."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import Any

import pytest

from amqpworker.ipc.kernel import ProcessEnd, has_process_descriptors, memory_file, missing_calls
from amqpworker.supervisor.worker_handle import shared_memory


def refused(number: int) -> Any:
    def call(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture(params=["there", "absent", "refused", "forbidden"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("memfd_create", "pidfd_open"):
        match request.param:
            case "absent":
                monkeypatch.delattr(os, name)
            case "refused":
                monkeypatch.setattr(os, name, refused(errno.ENOSYS))
            case "forbidden":
                monkeypatch.setattr(os, name, refused(errno.EPERM))
    return str(request.param)


def test_what_is_missing_is_named(system: str) -> None:
    assert list(missing_calls()) == ([] if system == "there" else ["memfd_create", "pidfd_open"])
    assert has_process_descriptors() is (system == "there")


@pytest.mark.usefixtures("system")
def test_there_is_memory_for_two_processes_and_a_file_without_a_path() -> None:
    descriptor, memory = shared_memory(4096)
    memory[:4] = b"here"
    assert os.pread(descriptor, 4, 0) == b"here"
    memory.close()
    os.close(descriptor)
    descriptor = memory_file("amqpworker-test")
    os.write(descriptor, b"more")
    assert os.pread(descriptor, 4, 0) == b"more"
    os.close(descriptor)


@pytest.mark.usefixtures("system")
def test_the_end_of_a_child_is_noticed_and_left_to_be_reaped() -> None:
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    end = ProcessEnd(child.pid)
    assert not end.wait()
    assert not end.wait(0.05)
    assert child.stdin is not None
    child.stdin.close()
    assert end.wait(30)
    assert end.wait()
    assert child.wait(0) == 0
    end.close()
    end.close()


def test_a_shortage_of_descriptors_is_not_taken_for_a_missing_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "memfd_create", refused(errno.EMFILE))
    monkeypatch.setattr(os, "pidfd_open", refused(errno.EMFILE))
    with pytest.raises(OSError, match="Too many open files"):
        memory_file("amqpworker-test")
    with pytest.raises(OSError, match="Too many open files"):
        ProcessEnd(os.getpid())
    assert has_process_descriptors()
    assert missing_calls() == {}
