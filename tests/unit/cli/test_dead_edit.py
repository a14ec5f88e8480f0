"""`amqpworker dead edit` without a broker: which letters it changes, which version their arguments have, and the editor."""

from __future__ import annotations

import signal
import subprocess
import sys

from amqpworker.cli.dead_edit_command import Edit, with_version, without_interrupts
from amqpworker.model.dead_letter import DeadLetter
from amqpworker.model.message import Delivery, Headers, Properties, Publication


def headers_of(version: int, **before: int) -> Headers:
    old: Headers = {name.replace("_", "-"): value for name, value in before.items()}
    properties = Properties(headers=old, type="shop.task")
    edited = with_version(Publication("amqpworker.due", "work", properties, b"{}"), version)
    assert edited.properties.type == "shop.task"
    assert properties.headers == {name.replace("_", "-"): value for name, value in before.items()}, "as they were"
    return edited.properties.headers or {}


def test_edited_arguments_have_the_version_of_the_task_that_they_fit() -> None:
    assert headers_of(3, aw_version=2, tenant=5) == {"aw-version": 3, "tenant": 5}
    assert headers_of(2) == {"aw-version": 2}
    assert headers_of(1, aw_version=2) == {}


def letter(task: str = "shop.task", body: bytes = b"{}", **headers: int) -> DeadLetter:
    named: Headers = {name.replace("_", "-"): value for name, value in headers.items()}
    properties = Properties(message_id="id", type=task, headers=named)
    return DeadLetter.of(Delivery(1, False, "dead", "emails", properties, body), "emails.dead", 1)


def test_only_letters_with_the_task_and_the_arguments_that_were_edited_are_changed() -> None:
    edit = Edit(letter(), b"[]", 1, replay=False)
    assert edit.is_of(letter(aw_attempt=3))
    for other in (letter("shop.other"), letter(body=b'{"a":1}'), letter(aw_version=2)):
        assert not edit.is_of(other)


def test_a_ctrl_c_in_the_editor_is_the_editors() -> None:
    editor = (
        "import os, signal; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler; "
        "os.kill(os.getppid(), signal.SIGINT); print('edited')"
    )
    before = signal.getsignal(signal.SIGINT)
    with without_interrupts():
        assert subprocess.check_output([sys.executable, "-c", editor]) == b"edited\n"
    assert signal.getsignal(signal.SIGINT) is before
