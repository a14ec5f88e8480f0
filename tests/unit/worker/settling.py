"""A workbench for tests of the worker: each test confirms by hand, and a store records its calls in the same order."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from amqpworker.broker.consumer_channel import ConsumerChannel
from amqpworker.errors import ResultStoreError
from amqpworker.model.clock import CLOCK, Clock
from amqpworker.model.message import Delivery, Properties, Publication
from amqpworker.model.outcome import Dead, Failure, Outcome, Retry
from amqpworker.policies.hook_functions import Hooks
from amqpworker.policies.retry import policy
from amqpworker.policies.time_limit import UNLIMITED
from amqpworker.results.row import ResultRow
from amqpworker.results.store import Subscription
from amqpworker.routing.queues import Plan
from amqpworker.routing.topology import Names
from amqpworker.settings import Settings
from amqpworker.signature.signature import Signature
from amqpworker.testing.one_delivery import Parts, Step, Workbench
from amqpworker.worker.context import Run

NAMES = Names("amqpworker")
FAILURE = Failure("OSError", "no route to host", "Traceback …")
RETRY = Retry(2.0, FAILURE)
DEAD = Dead("failed", FAILURE)


class Store:
    """Keeps rows in a dictionary; the first `failures` attempts fail."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
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

    def subscribe(self) -> Subscription:
        raise NotImplementedError

    def check_writable(self) -> str | None:
        """It always is."""
        return None

    def close(self) -> None:
        """There is nothing to close."""


class IgnoringReceiver:
    """A receiver of deliveries that does nothing with them."""

    def on_channel_opening(self, channel: ConsumerChannel) -> None: ...

    def on_delivery(self, delivery: Delivery) -> None: ...

    def on_replacing(self, queue: str) -> None: ...

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


def registered(function: Callable[..., Any] = example, retry: Any = None, **changed: Any) -> Any:
    """Return a task as a worker knows it."""
    return SimpleNamespace(
        **{
            "name": "example",
            "function": function,
            "signature": Signature.of(function, "example"),
            "policy": policy(retry),
            "stores_result": True,
            "track": False,
            "dedupe": False,
            "result_ttl": None,
            "time_limit": UNLIMITED,
            "isolated": False,
            "hooks": Hooks(),
            "app": SimpleNamespace(hooks=Hooks()),
            "version": 1,
            "upgrade": None,
            "throws": (),
            **changed,
        }
    )


EXAMPLE = registered()


class Bench(Workbench):
    """A workbench whose confirms a test gives, with a store in memory whose steps are noted as well."""

    def __init__(
        self,
        stores: bool = True,
        tasks: Mapping[str, Any] | None = None,
        clock: Clock = CLOCK,
        **settings: Any,
    ) -> None:
        self.store = Store()
        store = self.store if stores else None
        plan = Plan(NAMES.namespace, declare=True)
        super().__init__(tasks or {}, plan, Settings(**settings), Parts(store, clock=clock))
        self.store.steps = self.steps
        self.publisher.confirms_at_once = False
        self.settle = self.pipeline.settle

    def delivery(self, body: bytes = b"{}", **properties: Any) -> Delivery:
        """Deliver a message on the present channel."""
        known = {"type": "example", "content_type": "application/json", **properties}
        delivery = self.deliver(Publication(NAMES.tasks, "work", Properties(**known), body))
        if "message_id" not in properties:
            delivery.properties.message_id = f"id-{delivery.tag}"
        return delivery

    def started(self, delivery: Delivery, attempt: int = 1) -> Run:
        """Claim a delivery as a runner does, and return its run."""
        assert self.channel.claim(delivery)
        task_id = delivery.properties.message_id or "given by the worker"
        return Run(EXAMPLE, delivery, task_id, attempt, 1000.0, 900.0)
