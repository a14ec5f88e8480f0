"""Which options of the interpreter our programs hand on to each other."""

from __future__ import annotations

import sys

import pytest

from amqpworker.ipc.interpreter_options import interpreter_options


@pytest.mark.parametrize(
    ("given", "handed_on"),
    [
        ("-m amqpworker worker shop:app -q -O -W x", ""),
        ("-O -u -m amqpworker", "-O -u"),
        ("-OOu -X dev -Xutf8=0 -W error -m amqpworker", "-O -O -u -X dev -X utf8=0 -W error"),
        ("-uWignore::UserWarning -P -i -m amqpworker", "-u -W ignore::UserWarning"),
        ("-IPc code -O", "-I"),
        ("-bmamqpworker -O", "-b"),
        ("--check-hash-based-pycs always -B /usr/bin/amqpworker -O", "--check-hash-based-pycs always -B"),
        ("-E /usr/bin/amqpworker worker -s", "-E"),
        ("- -O", ""),
        ("-W", "-W "),
        ("", ""),
    ],
)
def test_options_that_were_given_are_handed_on_but_those_that_say_what_is_run(given: str, handed_on: str) -> None:
    assert " ".join(interpreter_options(["python", *given.split()])) == handed_on


def test_the_command_of_this_process_is_the_default() -> None:
    assert interpreter_options() == interpreter_options(sys.orig_argv)
