"""
What makes an app run inline: its parts without a broker, and their end.

Decides what follows a message that is sent: it runs at once, waits for `run`, or is waited for by its caller. At the end the app
has its own parts again. `inline` is what a test sees of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from amqpworker.broker.address import addresses
from amqpworker.broker.publish_session import CALLS, SENDS
from amqpworker.client.app_parts import AppParts
from amqpworker.client.async_producer import AsyncProducer
from amqpworker.client.producer import Producer
from amqpworker.errors import ConfigError
from amqpworker.testing.inline_broker import InlineBroker
from amqpworker.testing.inline_publisher import InlineCarriers, InlinePublisher
from amqpworker.testing.inline_results import InlineResults
from amqpworker.testing.inline_worker import InlineWorker
from amqpworker.testing.memory_store import MemoryStore
from amqpworker.testing.virtual_clock import VirtualClock
from amqpworker.worker.cancels import Cancels

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.broker.pending_publish import PendingPublish
    from amqpworker.broker.publish_session import Purpose
    from amqpworker.client.calls import Calls
    from amqpworker.client.stored_results import StoredResults
    from amqpworker.model.message import Publication

NOWHERE = "amqp://127.0.0.1:1/"
"""The URL of an app that runs inline: nothing listens there."""

NO_BROKER = "this app runs inline, without a broker. Use the fixture amqp_app for it."


class InlineEngine:
    """The parts of an app that runs inline; the app has `parts` until it is closed."""

    def __init__(self, app: App, eager: bool) -> None:
        self.app = app
        self.clock = VirtualClock()
        self.sent: list[Publication] = []
        """What was sent or called, the first one first."""
        self._eager = eager
        self._results: InlineResults | None = None
        stored: dict[str, StoredResults] = {}
        if app.results is not None:
            stored[app.results] = self._results = InlineResults(MemoryStore(), self.clock)
        producer = Producer(app.plan, app.settings, self._publisher, self.clock.now)
        self.parts = AppParts(
            url=NOWHERE,
            addresses=addresses(NOWHERE),
            producer=producer,
            async_made={None: AsyncProducer(producer, InlineCarriers(producer))},
            results=app.results,
            stored_results=stored,
            no_broker=NO_BROKER,
        )
        cancels = Cancels(self.clock.now)
        self.broker = InlineBroker(app.plan, self.clock, cancels, self._is_served)
        store = None if self._results is None else self._results.store
        self.worker = InlineWorker(app, store, self.broker, self.clock, cancels)
        if self._results is not None:
            self._results.worker = self.worker

    def close(self) -> None:
        """End its threads, and leave the lifespan of the app."""
        self.worker.close()
        if self._results is not None:
            self._results.close()

    def _publisher(self, calls: Calls) -> InlinePublisher:
        return InlinePublisher(addresses(NOWHERE), self.app.settings, self._accept, calls)

    def _accept(self, pending: PendingPublish, purpose: Purpose, calls: Calls) -> None:
        self.broker.accept(pending, calls)
        if pending.error is not None or purpose not in (SENDS, CALLS):
            return
        if pending.publication.routing_key != self.app.plan.names.cancelled:
            self.sent.append(pending.publication)
        if purpose is CALLS:
            self.worker.answer(pending, calls)
        elif self._eager and not self.worker.is_inside_task:
            self.worker.run_sent(pending)

    def _is_served(self, queue: str) -> bool:
        """Return whether the app's own workers consume a queue: not one that only tasks of other programs have."""
        of_others = any(remote.queue == queue for remote in self.app.remotes.values())
        return not of_others or any(task.queue == queue for task in self.app.tasks.values())


@contextlib.contextmanager
def running_engine(app: App, eager: bool) -> Iterator[InlineEngine]:
    """Have an app run inline during a block; raises ConfigError if it does already."""
    engine = InlineEngine(app, eager)
    former = app.exchange_parts(engine.parts)
    try:
        if former.no_broker:
            raise ConfigError("This app runs inline already: one block, or one test with amqp_inline, at a time.")
        with contextlib.closing(engine):
            yield engine
    finally:
        app.exchange_parts(former)
