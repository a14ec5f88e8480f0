"""What `amqpworker` itself gives: the names are there as they always were, and loaded when they are asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import amqpworker


@pytest.mark.parametrize("name", amqpworker.__all__)
def test_each_public_name_is_there_and_listed(name: str) -> None:
    assert getattr(amqpworker, name).__name__ == name
    assert name in dir(amqpworker)


def test_an_unknown_name_is_an_attribute_error_as_of_any_module() -> None:
    with pytest.raises(AttributeError, match="module 'amqpworker' has no attribute 'Ap'") as told:
        getattr(amqpworker, "Ap")  # noqa: B009 - a type checker knows that it is not there
    assert told.value.name == "Ap"
    with pytest.raises(ImportError, match="cannot import name 'Ap' from 'amqpworker'"):
        exec("from amqpworker import Ap")


LOADED = """
import sys, amqpworker
print([name for name in ("pika", "pydantic", "structlog", "amqpworker.app") if name in sys.modules])
from amqpworker import *
print(App.__module__, current.__module__, App is amqpworker.App)
"""


def test_importing_the_package_alone_loads_nothing_else() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\namqpworker.app amqpworker.worker.context True\n"
