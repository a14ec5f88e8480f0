"""The connection's own rules, apart from the bytes: versions of pika, and which number a channel gets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from amqpworker.broker.pika_connection import check_pika_version


@pytest.mark.parametrize("version", ["1.4.0", "1.4.4", "1.4.99"])
def test_versions_of_pika_that_were_tested_are_accepted(version: str) -> None:
    check_pika_version(version)


@pytest.mark.parametrize("version", ["0.13.1", "1.3.2", "1.5.0", "1.5.0b1", "2.0.0"])
def test_any_other_version_of_pika_is_refused_in_one_line_that_names_it(version: str) -> None:
    with pytest.raises(ImportError) as refused:
        check_pika_version(version)
    assert str(refused.value) == f"amqpworker requires pika>=1.4,<1.5, but pika {version} is installed."


def test_importing_the_broker_with_another_pika_raises_that_line() -> None:
    program = "import pika; pika.__version__ = '1.5.0'; import amqpworker.broker.publisher"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.stderr.endswith("ImportError: amqpworker requires pika>=1.4,<1.5, but pika 1.5.0 is installed.\n")


def test_the_range_of_pika_is_the_one_that_the_package_requires() -> None:
    assert '"pika>=1.4,<1.5"' in Path("pyproject.toml").read_text()
