"""Who uses an app: threads in its block, workers, and forked children, which start with none."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from amqpworker.client.app_users import AppUsers
from tests.support import in_child

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def in_other_thread(work: Any) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join(10)
    return found[0]


def test_the_last_one_out_is_known_among_threads_and_in_nested_blocks() -> None:
    users = AppUsers()
    users.enter()
    users.enter()
    in_other_thread(users.enter)
    assert not users.leave()
    assert not users.leave()
    assert users.has_others
    assert in_other_thread(users.leave)
    assert not users.has_others


def test_one_that_leaves_in_another_thread_than_it_entered_is_counted_all_the_same() -> None:
    users = AppUsers()
    in_other_thread(users.enter)
    users.enter()
    assert not in_other_thread(users.leave)
    assert users.leave()


def test_a_worker_is_never_the_thread_that_asks() -> None:
    users = AppUsers()
    users.worker_started()
    assert users.has_others
    users.enter()
    assert not users.leave()
    users.worker_stopped()
    assert not users.has_others


def test_a_forked_child_has_no_users_but_its_own() -> None:
    users = AppUsers()
    users.worker_started()
    users.enter()
    assert in_child(lambda: not users.has_others and users.leave())
    assert users.has_others
