"""`amqpworker.testing` as a user's tests use it: a worker in a thread of the test, which ends cleanly."""

from __future__ import annotations

import pytest

from amqpworker import App
from amqpworker.testing import running_worker
from tests.support import Broker


@pytest.fixture
def app(vhost: Broker) -> App:
    return App(vhost.url)


def test_tasks_run_while_a_local_worker_does(app: App) -> None:
    @app.task(name="numbers.double", queue="numbers")
    def double(number: int) -> int:
        return 2 * number

    with running_worker(app, threads=2):
        assert double.call(21) == 42


def test_a_worker_that_ends_with_another_exit_code_fails_the_test(app: App) -> None:
    @app.task(name="numbers.double", queue="numbers")
    def double(number: int) -> int:
        return 2 * number

    with pytest.raises(AssertionError, match="exit code 0, not 3"), running_worker(app, threads=1, code=3):
        pass
