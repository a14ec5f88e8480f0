"""The log lines of a pool become log records of the test; what an external broker is, by its two URLs."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from amqpworker import App
from amqpworker.testing.external_broker import ExternalBroker
from amqpworker.testing.moved_app import Place
from amqpworker.testing.worker_pool import fields_of, record_of
from amqpworker.testing.workers import Workers


def test_a_line_of_json_is_a_record_of_its_level_with_its_fields() -> None:
    fields = fields_of(
        '{"timestamp": "…", "level": "warning", "event": "late", "logger": "shop", "task": "a", "attempt": 2}'
    )
    record = record_of(fields, "shop")
    assert (record.name, record.levelno, record.getMessage()) == ("shop", logging.WARNING, "late task='a' attempt=2")


def test_a_traceback_follows_its_line() -> None:
    record = record_of({"event": "failed: 100 %s", "level": "error", "exception": "Traceback …\nOSError: no"}, "shop")
    assert record.getMessage() == "failed: 100 %s\nTraceback …\nOSError: no"


def test_what_is_not_json_is_a_line_all_the_same() -> None:
    for line in ("printed by a task\n", "[1, 2]\n", '{"no": "event"}\n', "\n"):
        fields = fields_of(line)
        record = record_of(fields, "amqpworker")
        assert (record.getMessage(), record.levelno) == (line.rstrip(), logging.INFO)


def test_an_external_broker_has_the_login_of_its_urls() -> None:
    broker = ExternalBroker("amqp://shop:p%40ss@rabbit:5673/prod?heartbeat=5,amqp://other", "http://rabbit:15672")
    assert broker.url("a/b") == "amqp://shop:p%40ss@rabbit:5673/a%2Fb?heartbeat=5"
    assert (broker.user, broker.management_url) == ("shop", "http://rabbit:15672")
    assert broker.management.user == "shop"
    broker = ExternalBroker("amqp://rabbit", "http://admin:secret@rabbit:15672/")
    assert (broker.user, broker.management.user) == ("guest", "admin")
    assert broker.management_url == "http://rabbit:15672/"


def test_a_place_is_carried_in_a_variable() -> None:
    place = Place("shop:app", "amqp://h/v", None, ("/a", "/b"))
    assert Place.load(place.dump()) == place


class Ending:
    """A worker that ends with a code, or does not stop."""

    def __init__(self, code: int | None) -> None:
        self.code, self.is_asked = code, False

    def stop(self) -> int:
        self.is_asked = True
        if self.code is None:
            raise AssertionError("The worker did not stop within 40 s.")
        return self.code


def test_a_worker_that_does_not_stop_leaves_no_other_running() -> None:
    started: list[Any] = [Ending(0), Ending(None), Ending(1)]
    workers = Workers(App("amqp://localhost/"))
    workers._started += started
    with pytest.raises(AssertionError, match="did not stop within 40 s"):
        workers.stop()
    assert all(worker.is_asked for worker in started)
    workers._started += [Ending(0), Ending(3)]  # type: ignore[list-item]
    with pytest.raises(AssertionError, match="ended with exit code 3, not 0"):
        workers.stop()
