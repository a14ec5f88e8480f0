"""The connection's own rules, apart from the bytes: versions of pika, and which number a channel gets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from pika.exceptions import NoFreeChannels

from amqpworker.broker.pika_connection import PikaConnection, check_pika_version


def connection(channel_max: int) -> PikaConnection:
    """Return a connection that was never made."""
    made = PikaConnection.__new__(PikaConnection)
    made.params = SimpleNamespace(channel_max=channel_max)
    made._numbers_in_use = set()
    made._last_number = 0
    return made


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


def test_numbers_begin_with_the_one_that_publications_are_marshalled_for() -> None:
    one = connection(5)
    assert [one.take_channel_number() for _ in range(5)] == [1, 2, 3, 4, 5]


def test_a_number_is_not_given_again_at_once() -> None:
    # pika drops a channel only after it has reported that it is closed, and then by its number
    one = connection(2047)
    first = one.take_channel_number()
    one.release_channel_number(first)
    assert one.take_channel_number() != first


def test_numbers_come_round_and_those_in_use_are_left_out() -> None:
    one = connection(6)
    kept = one.take_channel_number()
    for _ in range(20):
        number = one.take_channel_number()
        assert number != kept
        one.release_channel_number(number)


def test_more_channels_than_there_are_numbers_is_an_error_that_open_channel_reports() -> None:
    one = connection(4)
    taken = [one.take_channel_number() for _ in range(4)]
    with pytest.raises(NoFreeChannels):
        one.take_channel_number()
    one.release_channel_number(taken[1])
    assert one.take_channel_number() == taken[1]
