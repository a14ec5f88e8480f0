"""
One delivery through the pipeline of a worker, without a broker: claimed, run, settled, and what would have been sent recorded.

Everything is real except what needs a connection: the lanes of the publisher and the AMQP channel only record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from amqpworker.broker.consumer_channel import ConsumerChannel, Subscription
from amqpworker.broker.pending_publish import OnDone, PendingPublish
from amqpworker.errors import AmqpWorkerError
from amqpworker.hooks import Settled
from amqpworker.ipc.recorder import Recorder
from amqpworker.model.clock import CLOCK, Clock
from amqpworker.model.message import Delivery, Message, Publication
from amqpworker.model.outcome import Outcome
from amqpworker.routing import envelope
from amqpworker.routing.queues import Plan, Requirement
from amqpworker.settings import Settings
from amqpworker.worker.context import Run
from amqpworker.worker.executor import Gate, TaskExecutor
from amqpworker.worker.middleware import Middleware, MiddlewareStack, RunCoroutine
from amqpworker.worker.pipeline import Acceptance, Pipeline
from amqpworker.worker.result_storer import ResultStorer, StoredRow
from amqpworker.worker.settle import Settler

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.broker.publisher import Publisher
    from amqpworker.results.store import ResultStore
    from amqpworker.task import Task
    from amqpworker.worker.limits.limits import Limits
    from amqpworker.worker.stored_checks import StoredChecks

Step = tuple[Any, ...]
"""What the broker would have seen: `("publish", exchange, routing key)`, `("ack", tag, multiple)` or `("nack", tag)`."""


@dataclass(frozen=True, slots=True)
class _Outgoing:
    """A publication that waits for its confirm."""

    publication: Publication
    timeout: float | None
    on_done: OnDone

    def confirm(self) -> None:
        self.on_done(None)

    def fail(self, error: AmqpWorkerError) -> None:
        self.on_done(error)


class _RecordingLane:
    """A lane of the publisher; `refusals` are raised, one per call. Unless all is confirmed at once, `underway` is what waits."""

    def __init__(self, steps: list[Step]) -> None:
        self.steps = steps
        self.underway: list[_Outgoing] = []
        self.published: list[Publication] = []
        self.refusals: list[Exception] = []
        self.confirms_at_once = True

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

    def submit(self, pending: PendingPublish) -> None:
        publication = pending.publication
        assert pending.on_done is not None
        self.steps.append(("publish", publication.exchange, publication.routing_key))
        self.published.append(publication)
        outgoing = _Outgoing(publication, pending.timeout, pending.on_done)
        if self.confirms_at_once:
            outgoing.confirm()
        else:
            self.underway.append(outgoing)

    def publish(self, publication: Publication, timeout: float | None = None, on_done: OnDone | None = None) -> None:
        self.submit(self.make_pending(publication, (), timeout, on_done))

    def overdue(self, before: float) -> int:
        return sum((outgoing.timeout or 0.0) <= before for outgoing in self.underway)

    def confirm(self) -> None:
        """Confirm the oldest."""
        self.underway.pop(0).confirm()

    def fail(self, error: AmqpWorkerError) -> None:
        """Fail the oldest."""
        self.underway.pop(0).fail(error)

    @property
    def copies(self) -> _RecordingLane:
        """Be the publisher, too: all its lanes are this one."""
        return self

    replies = copies


class _RecordingChannel:
    """An AMQP channel that records acknowledgements once they are flushed."""

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps
        self._gathered: list[Step] = []

    def ack(self, tag: int, multiple: bool) -> None:
        self._gathered.append(("ack", tag, multiple))

    def requeue(self, tag: int) -> None:
        self._gathered.append(("nack", tag))

    def flush(self) -> None:
        self._steps += self._gathered
        self._gathered.clear()


class Parts(NamedTuple):
    """
    What one delivery is run with; the `publisher` is by default one that only records.

    `run_coroutine` runs a coroutine to its end; by default in the event loop of the workbench.
    """

    store: ResultStore | None = None
    middleware: Sequence[Middleware] = ()
    clock: Clock = CLOCK
    publisher: Publisher | None = None
    gates: Sequence[Gate] = ()
    limits: Limits | None = None
    stored_checks: StoredChecks | None = None
    run_coroutine: RunCoroutine | None = None


class _StoresAtOnce(ResultStorer):
    """Stores each row in the thread that puts it, and tries again at once."""

    def put(self, row: StoredRow) -> None:
        super().put(row)
        while not self.is_idle:
            self.store_waiting()


class Workbench:
    """A pipeline with everything around it; `steps` is what the broker would have seen, `events` what was emitted."""

    def __init__(
        self, tasks: Mapping[str, Task[Any, Any]], plan: Plan, settings: Settings, parts: Parts | None = None
    ) -> None:
        parts = Parts() if parts is None else parts
        clock, store = parts.clock, parts.store
        self._clock = clock
        self.loop = asyncio.Runner()
        self._run_coroutine = parts.run_coroutine or self._run_here
        self.steps: list[Step] = []
        self.events: list[Settled] = []
        self.wakes = 0
        lanes: Any = _RecordingLane(self.steps)
        self.publisher: _RecordingLane = lanes
        storer = None if store is None else _StoresAtOnce(store, clock)
        self.settler = Settler(parts.publisher or lanes, storer, plan, settings, self._wake, clock)
        self.settler.listeners.add(self.events.extend)
        stack = MiddlewareStack.of(parts.middleware, self._run_coroutine)
        self.executor = TaskExecutor(tasks, store is not None, parts.limits, stack, parts.gates, clock)
        isolation: Any = self  # with `run`
        self.pipeline = Pipeline(self.executor, self.settler, isolation, parts.stored_checks)
        self.channel = self.new_channel()

    def _run_here(self, coroutine: Coroutine[Any, Any, Any], timeout: float | None = None) -> Any:
        return self.loop.run(coroutine if timeout is None else asyncio.wait_for(coroutine, timeout))

    def _wake(self) -> None:
        self.wakes += 1

    def new_channel(self, queue: str = "work") -> ConsumerChannel:
        """Return a new channel of a queue, whose deliveries are numbered from one."""
        receiver: Any = self  # with `on_delivery`
        channel = ConsumerChannel(Subscription(queue, 10), receiver, lambda: None, self._clock.monotonic)
        channel.channel = _RecordingChannel(self.steps)  # type: ignore[assignment]
        self._tags = 0
        return channel

    def on_delivery(self, delivery: Delivery) -> None:
        """Do nothing: the caller passes each delivery to `take`."""

    def deliver(self, publication: Publication) -> Delivery:
        """Deliver a message on the present channel."""
        self._tags += 1
        delivery = Delivery(
            self._tags, False, publication.exchange, publication.routing_key, publication.properties, publication.body
        )
        self.channel.on_delivery(delivery)
        return delivery

    def take(self, delivery: Delivery) -> None:
        """Take a delivery from its claim until it is settled, in this thread."""
        slots = Recorder(1).slots
        if self.executor.is_coroutine(delivery):
            self._run_coroutine(self.pipeline.execute_async(delivery, slots, Acceptance(), self.pipeline.settle), None)
        else:
            self.pipeline.execute(delivery, slots[0], Acceptance())

    def run(self, run: Run) -> Outcome:
        """Run an isolated task in this process."""
        return self.executor.run(run, lambda coroutine: self._run_coroutine(coroutine, None))

    def flush(self) -> list[Step]:
        """Let the I/O thread settle; return the steps so far, which are forgotten."""
        self.settler.flush()
        steps = self.steps[:]
        self.steps.clear()
        return steps


class Taken(NamedTuple):
    """What became of a message: the event of its settling, what was published in order, and all that the broker has seen."""

    event: Settled
    published: tuple[Publication, ...]
    steps: tuple[Step, ...]

    @property
    def outcome(self) -> Outcome:
        """How the delivery ended."""
        return self.event.outcome


def run_one(app: App, message: Message, clock: Clock = CLOCK) -> Taken:
    """
    Run one message of an app as a worker would, without a broker, and return what has become of it.

    The app's middleware and result store are used, its lifespan is not. Whatever would be published counts as confirmed.
    """
    bench = Workbench(app.tasks, app.plan, app.settings, Parts(app.store(), app.middleware, clock))
    bench.channel = bench.new_channel(message.queue)
    delivery = bench.deliver(envelope.publication_of_send(message, app.plan.names, clock.now(), app.settings.app_id))
    with bench.loop:
        bench.take(delivery)
    steps = bench.flush()
    (event,) = bench.events
    return Taken(event, tuple(bench.publisher.published), tuple(steps))
