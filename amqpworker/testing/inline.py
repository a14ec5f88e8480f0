"""
An app that runs its tasks where they are sent, without a broker: what the fixture `amqp_inline` is.

Decides when messages run, and which of them a test sees. The app has its own parts again when the block has ended.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from amqpworker.broker.address import addresses
from amqpworker.broker.publish_session import CALLS, SENDS
from amqpworker.client.app_parts import AppParts
from amqpworker.client.async_producer import AsyncProducer
from amqpworker.client.producer import Producer
from amqpworker.errors import ConfigError
from amqpworker.policies.durations import duration
from amqpworker.routing.topology import DEFAULT_SCHEDULER
from amqpworker.schedules.tick import tick_message
from amqpworker.testing.inline_broker import InlineBroker
from amqpworker.testing.inline_publisher import InlineCarriers, InlinePublisher
from amqpworker.testing.inline_results import InlineResults
from amqpworker.testing.inline_worker import InlineWorker
from amqpworker.testing.memory_store import MemoryStore
from amqpworker.testing.sent_messages import SentMessage, check_parameters, name_of_task, sent_message
from amqpworker.testing.virtual_clock import VirtualClock
from amqpworker.text import did_you_mean
from amqpworker.worker.cancels import Cancels

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.broker.pending_publish import PendingPublish
    from amqpworker.broker.publish_session import Purpose
    from amqpworker.client.calls import Calls
    from amqpworker.client.stored_results import StoredResults
    from amqpworker.model.dead_letter import DeadLetter
    from amqpworker.model.message import Publication
    from amqpworker.task import RemoteTask

NOWHERE = "amqp://127.0.0.1:1/"
"""The URL of an app that runs inline: nothing listens there."""

INSTEAD = "this app runs inline, without a broker. Use the fixture amqp_app for it."


class Inline:
    """
    The messages of an app that runs inline.

    Each task runs in the thread that sends its message, before `send` returns; with `eager` false only `run` and `advance` run
    them. What a task sends runs after it. Delayed messages and retries run once `advance` has moved the clock.
    """

    def __init__(self, app: App, clock: VirtualClock, eager: bool = True) -> None:
        self.app = app
        self._eager = eager
        self._clock = clock
        cancels = Cancels(clock.now)
        self._broker = InlineBroker(app.plan, clock, cancels, self._is_served)
        self._worker = InlineWorker(app, self._broker, clock, cancels)
        self._sent: list[Publication] = []

    @property
    def now(self) -> datetime:
        """The time of its clock, in UTC: as far ahead of the real time as it was moved by `advance` and by calls."""
        return datetime.fromtimestamp(self._clock.now(), UTC)

    def run(self) -> int:
        """
        Run all messages that are due, and those that they send, until none is left; return how often tasks were started.

        Messages that are refused without a run, such as those that have expired, count as well.
        """
        return self._worker.run_ready()

    def advance(self, seconds: float | timedelta) -> None:
        """
        Move the clock forward, and run what falls due until then, each message at its time.

        Raises:
            InvalidArguments: `seconds` is not a duration.
        """
        self._worker.advance_to(self._clock.now() + duration(seconds, "seconds"))

    def sent(self, task: RemoteTask[..., Any] | str | None = None, /, **arguments: Any) -> list[SentMessage]:
        """
        Return the messages that were sent, the first one first: of one task, and with these arguments, if they are given.

        Calls are among them; retries, dead letters and replies are not.

        Raises:
            ConfigError: the app has no such task, or the task has no parameter of that name.

        Example:
            assert amqp_inline.sent(send_welcome, user_id=42)
        """
        messages = [sent_message(one, self.app) for one in list(self._sent)]
        if task is None:
            if arguments:
                raise ConfigError(
                    "sent(…): name the task whose arguments are meant, as in sent(send_welcome, user_id=42)."
                )
            return messages
        name = name_of_task(task, self.app)
        check_parameters(name, arguments, self.app)
        return [one for one in messages if one.task == name and _has(one, arguments)]

    def dead(self, task: RemoteTask[..., Any] | str | None = None) -> list[DeadLetter]:
        """
        Return the dead letters, the oldest first: of one task, if it is given.

        Raises:
            ConfigError: the app has no such task.
        """
        name = None if task is None else name_of_task(task, self.app)
        return [letter for letter in self._broker.dead_letters() if name is None or letter.task == name]

    def delayed(self) -> list[SentMessage]:
        """Return the messages that wait for their time, retries among them, the next one first."""
        return [sent_message(one, self.app) for one in self._broker.waiting()]

    def tick(self, schedule: str) -> None:
        """
        Move the clock to the next time of a schedule, and send its message, as a scheduler does.

        Raises:
            ConfigError: the app has no such schedule, or it has no further times.
        """
        found = self.app.schedules.get(schedule)
        if found is None:
            near = did_you_mean(schedule, self.app.schedules)
            raise ConfigError(f"The app has no schedule {schedule!r:.60}{near}.")
        nominal = found.timing.after(int(self._clock.now() * 1000))
        if nominal is None:
            raise ConfigError(f"Schedule {schedule!r} has no times after {self.now:%Y-%m-%d %H:%M:%S} UTC.")
        self._worker.advance_to(nominal / 1000)
        self.app.send(tick_message(found, self.app.plan.names.namespace, DEFAULT_SCHEDULER, nominal))

    def publisher(self, calls: Calls) -> InlinePublisher:
        """Return a publisher whose messages come here."""
        return InlinePublisher(addresses(NOWHERE), self.app.settings, self._accept, calls)

    @property
    def worker(self) -> InlineWorker:
        """What runs its messages."""
        return self._worker

    def close(self) -> None:
        """End its threads, and leave the lifespan of the app."""
        self._worker.close()

    def _is_served(self, queue: str) -> bool:
        """Return whether the app's own workers consume a queue: not one that only tasks of other programs have."""
        of_others = any(remote.queue == queue for remote in self.app.remotes.values())
        return not of_others or any(task.queue == queue for task in self.app.tasks.values())

    def _accept(self, pending: PendingPublish, purpose: Purpose, calls: Calls) -> None:
        self._broker.accept(pending, calls)
        if pending.error is not None or purpose not in (SENDS, CALLS):
            return
        if pending.publication.routing_key != self.app.plan.names.cancelled:
            self._sent.append(replace(pending.publication))
        if purpose is CALLS:
            self._worker.answer(pending, calls)
        elif self._eager and not self._worker.is_inside_task:
            self._worker.run_ready()


def _has(message: SentMessage, arguments: dict[str, Any]) -> bool:
    return all(name in message.arguments and message.arguments[name] == value for name, value in arguments.items())


@contextmanager
def running_inline(app: App, *, eager: bool = True) -> Iterator[Inline]:
    """
    Run the tasks of an app where they are sent, without a broker, during a block.

    If the app has a result store, a store in memory takes its place. Afterwards the app is as it was before.

    Raises:
        ConfigError: the app runs inline already.
    """
    clock = VirtualClock()
    results = None if app.results is None else InlineResults(MemoryStore(), clock)
    stored: dict[str, StoredResults] = {} if app.results is None or results is None else {app.results: results}
    nowhere = addresses(NOWHERE)
    former = app.exchange_parts(AppParts(NOWHERE, nowhere, app.producer, {}, app.results, stored, INSTEAD))
    try:
        if former.no_broker:
            raise ConfigError("This app runs inline already: one block, or one test with amqp_inline, at a time.")
        inline = Inline(app, clock, eager)
        if results is not None:
            results.worker = inline.worker
        producer = Producer(app.plan, app.settings, inline.publisher, clock.now)
        made: dict[None, AsyncProducer] = {None: AsyncProducer(producer, InlineCarriers(producer))}
        app.exchange_parts(AppParts(NOWHERE, nowhere, producer, made, app.results, stored, INSTEAD))
        with contextlib.closing(inline):
            yield inline
    finally:
        if results is not None:
            results.close()
        app.exchange_parts(former)
