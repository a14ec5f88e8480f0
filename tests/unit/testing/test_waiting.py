"""Waiting for a condition: no longer than needed, with a limit, and with an error that names what did not happen."""

from __future__ import annotations

import subprocess
import sys

import pytest

from amqpworker.testing import wait_until
from amqpworker.testing.waiting import is_true_within


def test_the_first_true_value_is_returned() -> None:
    values = iter([0, "", "third", "fourth"])
    assert wait_until(lambda: next(values)) == "third"


def test_a_condition_that_stays_false_fails_with_its_name_and_its_last_value() -> None:
    def queue_is_empty() -> list[int]:
        return []

    with pytest.raises(AssertionError, match=r"Not within 0\.05 s: queue_is_empty \(the last value was \[\]\)"):
        wait_until(queue_is_empty, timeout=0.05)
    with pytest.raises(AssertionError, match="the worker consumes"):
        wait_until(queue_is_empty, timeout=0, what="the worker consumes")


def test_a_node_waits_without_an_error() -> None:
    assert is_true_within(1.0, lambda: True)
    assert not is_true_within(0.05, lambda: False)


def test_a_private_node_loads_no_worker() -> None:
    code = "import sys, amqpworker.testing; sys.exit(any(one.startswith('amqpworker.worker') for one in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
