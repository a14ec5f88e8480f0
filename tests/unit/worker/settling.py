"""What `settle` works with, made plain: a publisher, a store and a channel that note what they are asked, in one order."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amqpworker.broker.consumer_channel import ConsumerChannel, Subscription
from amqpworker.broker.pending_publish import OnDone, PendingPublish
from amqpworker.errors import AmqpWorkerError, ResultStoreError
from amqpworker.model.message import Delivery, Properties, Publication
from amqpworker.model.outcome import Dead, Failure, Outcome, Retry
from amqpworker.policies.time_limit import UNLIMITED
from amqpworker.results.store import ResultRow
from amqpworker.routing.queues import Plan, Requirement
from amqpworker.routing.topology import Names
from amqpworker.settings import Settings
from amqpworker.signature.signature import Signature
from amqpworker.worker.context import Run
from amqpworker.worker.executor import Pipeline, TaskExecutor
from amqpworker.worker.settle import Settler

NAMES = Names("amqpworker")
FAILURE = Failure("OSError", "no route to host", "Traceback …")
RETRY = Retry(2.0, FAILURE)
DEAD = Dead("failed", FAILURE)

Step = tuple[Any, ...]


@dataclass
class Underway:
    """A publication that was put on its way; a test ends it."""

    publication: Publication
    timeout: float | None
    on_done: OnDone

    def confirm(self) -> None:
        self.on_done(None)

    def fail(self, error: AmqpWorkerError) -> None:
        self.on_done(error)


class Publisher:
    """Takes publications and waits for the test to end them; `refusals` are raised, one a call."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.underway: list[Underway] = []
        self.refusals: list[Exception] = []
        self.confirms_at_once = False

    def publish(
        self,
        publication: Publication,
        requirements: tuple[Requirement, ...] = (),  # noqa: ARG002
        timeout: float | None = None,
        on_done: OnDone | None = None,
    ) -> Any:
        if self.refusals:
            raise self.refusals.pop(0)
        assert on_done is not None
        self.steps.append(("publish", publication.exchange, publication.routing_key))
        one = Underway(publication, timeout, on_done)
        if self.confirms_at_once:
            one.confirm()
        else:
            self.underway.append(one)
        return None

    def make_pending(
        self,
        publication: Publication,
        requirements: tuple[Requirement, ...] = (),
        timeout: float | None = None,
        on_done: OnDone | None = None,
    ) -> PendingPublish:
        if self.refusals:
            raise self.refusals.pop(0)
        return PendingPublish(publication, timeout or 0.0, requirements, on_done)

    def submit(self, outgoing: PendingPublish) -> None:
        self.publish(outgoing.publication, outgoing.requirements, outgoing.timeout, outgoing.on_done)

    def overdue(self, before: float) -> int:
        return sum(1 for one in self.underway if (one.timeout or 0.0) <= before)

    def confirm(self) -> None:
        """Confirm the oldest."""
        self.underway.pop(0).confirm()

    def fail(self, error: AmqpWorkerError) -> None:
        """Fail the oldest."""
        self.underway.pop(0).fail(error)


class Store:
    """Keeps rows in a dictionary; the first `failures` attempts fail."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.rows: dict[str, ResultRow] = {}
        self.failures = 0
        self.failure: ResultStoreError = ResultStoreError("the disk is full")
        self.at_failure: Callable[[], None] = lambda: None

    def put(self, rows: Sequence[ResultRow]) -> Mapping[str, ResultStoreError]:
        if self.failures:
            self.failures -= 1
            self.at_failure()
            return {row.id: self.failure for row in rows}
        self.steps += [("store", row.id) for row in rows]
        self.rows.update({row.id: row for row in rows})
        return {}

    def get(self, ids: Collection[str]) -> Mapping[str, ResultRow]:
        return {one: self.rows[one] for one in ids if one in self.rows}

    def reply(self, task_id: str) -> Any:
        """Return the stored reply."""
        return json.loads(self.rows[task_id].reply)

    def delete(self, ids: Collection[str]) -> None:
        for one in ids:
            self.rows.pop(one, None)

    def expire(self, now: float, most: int) -> int:
        expired = [one for one, row in self.rows.items() if row.expires_at <= now][:most]
        self.delete(expired)
        return len(expired)

    def check_writable(self) -> str | None:
        """It always is."""
        return None

    def close(self) -> None:
        """There is nothing to close."""


class Wire:
    """A channel that notes acknowledgements, and whether they were flushed."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.gathered: list[Step] = []

    def ack(self, tag: int, multiple: bool) -> None:
        self.gathered.append(("ack", tag, multiple))

    def requeue(self, tag: int) -> None:
        self.gathered.append(("nack", tag))

    def flush(self) -> None:
        self.steps += self.gathered
        self.gathered.clear()


class Nobody:
    """A receiver of deliveries that does nothing with them."""

    def on_channel_opening(self, channel: ConsumerChannel) -> None: ...

    def on_delivery(self, delivery: Delivery) -> None: ...

    def on_channel_lost(self, channel: ConsumerChannel) -> None: ...

    def on_ack_timeout(self, channel: ConsumerChannel, timeout: float, reason: str) -> None: ...

    def on_wake(self) -> None: ...

    def on_tick(self) -> bool:
        return False


def example(n: int = 0) -> int:
    return n


class NoIsolation:
    """Runs nothing: these tests have no isolated processes."""

    def run(self, run: Run) -> Outcome:
        raise AssertionError(run)


class Registered:
    """A task as a worker knows it."""

    name = "example"
    function = staticmethod(example)
    signature = Signature.of(example, "example")
    stores_result = True
    time_limit = UNLIMITED
    policy: Any = None
    isolated = False


class Bench:
    """A settler with everything around it, and `steps`: what it did, in order."""

    def __init__(self, stores: bool = True, **settings: Any) -> None:
        self.steps: list[Step] = []
        self.wakes = 0
        self.publisher = Publisher(self.steps)
        self.store = Store(self.steps)
        store = self.store if stores else None
        self.settler = Settler(
            self.publisher,
            self.publisher,
            store,
            Plan(NAMES.namespace, declare=True),
            Settings(**settings),
            self._wake,
        )
        self.channel = self.new_channel()
        self.settle = Pipeline(TaskExecutor({}, stores), self.settler, NoIsolation()).settle

    def _wake(self) -> None:
        self.wakes += 1

    def new_channel(self) -> ConsumerChannel:
        """Begin a new channel."""
        channel = ConsumerChannel(Subscription("work", 10), Nobody(), lambda: None)
        channel.channel = Wire(self.steps)  # type: ignore[assignment]
        self.tags = 0
        return channel

    def delivery(self, body: bytes = b"{}", **properties: Any) -> Delivery:
        """Deliver a message on the present channel."""
        self.tags += 1
        known = {"message_id": f"id-{self.tags}", "type": "example", "content_type": "application/json", **properties}
        delivery = Delivery(self.tags, False, NAMES.tasks, "work", Properties(**known), body)
        self.channel.on_delivery(delivery)
        return delivery

    def started(self, delivery: Delivery, attempt: int = 1) -> Run:
        """Claim a delivery as a runner does, and return its run."""
        assert self.channel.claim(delivery)
        task_id = delivery.properties.message_id or "given by the worker"
        return Run(Registered, delivery, task_id, attempt, 1000.0, 900.0)

    def flush(self) -> list[Step]:
        """Let the I/O thread settle, and return the steps so far, which are forgotten."""
        self.settler.flush()
        steps = self.steps[:]
        self.steps.clear()
        return steps
