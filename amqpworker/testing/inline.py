"""
An app that runs its tasks where they are sent, without a broker: what the fixture `amqp_inline` is.

Decides which messages a test sees, and in which form; `inline_engine` decides when they run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from amqpworker.errors import ConfigError
from amqpworker.policies.durations import duration
from amqpworker.routing.topology import DEFAULT_SCHEDULER
from amqpworker.schedules.tick import tick_message
from amqpworker.testing.inline_engine import InlineEngine, running_engine
from amqpworker.testing.sent_messages import SentMessage, check_parameters, name_of_task, sent_message
from amqpworker.text import did_you_mean

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.model.dead_letter import DeadLetter
    from amqpworker.schedules.definition import Schedule
    from amqpworker.task import RemoteTask


class Inline:
    """
    The messages of an app that runs inline.

    Each task runs before the `send` of its message returns: in the thread that sends, or in the event loop of the tasks if it is
    `async def`. With `eager` false only `run` and `advance` run tasks. What a task sends runs after it. Delayed messages and
    retries run once `advance` has moved the clock.
    """

    def __init__(self, engine: InlineEngine) -> None:
        self._app = engine.app
        self._clock = engine.clock
        self._broker = engine.broker
        self._worker = engine.worker
        self._sent = engine.sent

    @property
    def now(self) -> datetime:
        """The time of its clock, in UTC: as far ahead of the real time as it was moved, by `advance` and by waits."""
        return datetime.fromtimestamp(self._clock.now(), UTC)

    def run(self) -> int:
        """Run all messages that are ready, and those that they send, until none is left; return how many were taken."""
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
        messages = [sent_message(one, self._app) for one in list(self._sent)]
        if task is None:
            if arguments:
                raise ConfigError(
                    "sent(…): name the task whose arguments are meant, as in sent(send_welcome, user_id=42)."
                )
            return messages
        name = name_of_task(task, self._app)
        check_parameters(name, arguments, self._app)
        return [one for one in messages if one.task == name and _has(one, arguments)]

    def dead(self, task: RemoteTask[..., Any] | str | None = None) -> list[DeadLetter]:
        """
        Return the dead letters, the oldest first: of one task, if it is given.

        Raises:
            ConfigError: the app has no such task.
        """
        name = None if task is None else name_of_task(task, self._app)
        return [letter for letter in self._broker.dead_letters() if name is None or letter.task == name]

    def delayed(self) -> list[SentMessage]:
        """Return the messages that wait for their time, retries among them, the next one first."""
        return [sent_message(one, self._app) for one in self._broker.waiting()]

    def tick(self, schedule: str | Schedule) -> None:
        """
        Move the clock to the next time of a schedule, or of the one with this name, and send its message, as a scheduler does.

        Raises:
            ConfigError: the app has no such schedule, or it has no further times.
        """
        name = schedule if isinstance(schedule, str) else schedule.name
        found = self._app.schedules.get(name)
        if found is None:
            raise ConfigError(f"The app has no schedule {name!r:.60}{did_you_mean(name, self._app.schedules)}.")
        nominal = found.timing.after(int(self._clock.now() * 1000))
        if nominal is None:
            raise ConfigError(f"Schedule {name!r} has no times after {self.now:%Y-%m-%d %H:%M:%S} UTC.")
        self._worker.advance_to(nominal / 1000)
        self._app.send(tick_message(found, self._app.plan.names.namespace, DEFAULT_SCHEDULER, nominal))


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
    with running_engine(app, eager) as engine:
        yield Inline(engine)
