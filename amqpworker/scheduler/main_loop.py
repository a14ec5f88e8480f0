"""
What the main thread of a scheduler process does: it takes events, has `election` decide, and has `performer` act.

Decides the order in which it stops: the ticks in flight are confirmed, then a token that holds them, then the token is
released, which makes another scheduler the leader.
"""

from __future__ import annotations

import queue
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType
from typing import assert_never

from amqpworker.app import App
from amqpworker.broker.connection_problem import ConnectionProblem
from amqpworker.broker.token_queue import TokenQueue
from amqpworker.errors import AccessRefused, AmqpWorkerError, ConfigError
from amqpworker.ipc.exit_status import FAILED, MISCONFIGURED, STOPPED
from amqpworker.ipc.pipes import Report, Reporter
from amqpworker.ipc.recorder import MAIN, Counts, Gauges, Recorder
from amqpworker.log.logger import get_logger
from amqpworker.log.redaction import redact_text
from amqpworker.model.message import Delivery
from amqpworker.scheduler.election import Election
from amqpworker.scheduler.performer import Performer
from amqpworker.scheduler.scheduler_actions import Action
from amqpworker.scheduler.scheduler_events import (
    Delivered,
    Event,
    LeaderAnswered,
    StopRequested,
    StoreAnswered,
    Subscribed,
    TermEnded,
    TickEnded,
    TokenEnded,
)

log = get_logger("amqpworker.scheduler")

# Often enough to notice that the clock was set, and to show that this thread is alive.
MAX_WAIT = 1.0
WAKE_EVERY = 0.25
# Events that arrive without end do not hold up what is due.
MAX_EVENTS_TIME = 0.05
STOP_TIMEOUT = 5.0
RELEASE_TIMEOUT = 2.0
CLOSE_TIMEOUT = 2.0
LOG_EVERY = 5.0


class EventQueue:
    """What other threads and signal handlers report; a `SimpleQueue`, since a signal handler may interrupt its `put`."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def on_subscribed(self, term: int) -> None:
        """Pass on that a term begins."""
        self.events.put(Subscribed(term))

    def on_delivery(self, term: int, delivery: Delivery) -> None:
        """Pass on a message."""
        self.events.put(Delivered(term, delivery))

    def on_term_ended(self, reason: AmqpWorkerError | ConnectionProblem) -> None:
        """Pass on that the term has ended."""
        self.events.put(TermEnded(reason))


@dataclass(eq=False)
class SchedulerProcess:
    """The parts of a scheduler process."""

    app: App
    token_queue: TokenQueue
    incoming: EventQueue
    election: Election
    performer: Performer
    recorder: Recorder
    reporter: Reporter
    stop_now: bool = field(default=False, init=False)
    """Whether a second Ctrl-C has ended the wait for what is in flight."""
    _stopping: bool = field(default=False, init=False)
    _term: int = field(default=0, init=False)
    """The term of the subscription, 0 if there is none (`broker.token_queue`)."""
    _ever_subscribed: bool = field(default=False, init=False)
    _waits: str = field(default="", init=False)
    _log_at: float = field(default=0.0, init=False)
    _problem: AmqpWorkerError | None = field(default=None, init=False)

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Note a signal."""
        if self._stopping and number == signal.SIGINT:
            self.stop_now = True
        self.incoming.events.put(StopRequested())

    def on_parent_gone(self) -> None:
        """Stop as after a SIGTERM: the supervisor, which would send it, has ended."""
        if not self._stopping:
            log.warning("supervisor_lost", effect="it drains")
            self.incoming.events.put(StopRequested())

    def close(self) -> None:
        """Close what the app has opened, such as its result store."""
        self.app.close()

    def run(self) -> int:
        """Lead, or wait as a standby, until a signal; return the exit code."""
        self._log_at = time.monotonic() + LOG_EVERY
        self.reporter.send_reliably(Report("ready", drain_timeout=STOP_TIMEOUT))
        self.token_queue.start()
        while not self._stopping:
            self._step(MAX_WAIT)
            if self._problem is not None:
                self.token_queue.keeper.stop(CLOSE_TIMEOUT)
                return self._misconfigured(self._problem)
            if self.token_queue.keeper.has_ended:
                log.error("worker_broken", reason=self._waits or None, effect="it ends, and is replaced")
                return FAILED
        return self._stop()

    def _stop(self) -> int:
        self.election.stop()
        self._step_until(lambda: self.election.has_settled, STOP_TIMEOUT)
        self.token_queue.release()
        self._step_until(lambda: self._term == 0, RELEASE_TIMEOUT)
        self.token_queue.keeper.stop(CLOSE_TIMEOUT)
        log.info("scheduler_stopped")
        return STOPPED

    def _step_until(self, is_true: Callable[[], bool], timeout: float) -> None:
        until = time.monotonic() + timeout
        while not (is_true() or self.stop_now) and (left := until - time.monotonic()) > 0:
            self._step(min(left, MAX_WAIT))

    def _step(self, longest: float) -> None:
        """Wait until something happens or is due, and act on it."""
        self._record()
        wait = min(longest, self.election.seconds_left(_now(), time.monotonic()))
        if self._term == 0:
            # While it is not connected, this makes the next attempt sooner.
            self.token_queue.keeper.wake()
            wait = min(wait, WAKE_EVERY)
        try:
            event: Event | None = self.incoming.events.get(timeout=max(0.0, wait))
        except queue.Empty:
            event = None
        until = time.monotonic() + MAX_EVENTS_TIME
        while event is not None:
            self._perform(self._on_event(event))
            event = self._next_event() if time.monotonic() < until else None
        self._perform(self.election.turn(_now(), time.monotonic(), self.token_queue.is_blocked))

    def _next_event(self) -> Event | None:
        try:
            return self.incoming.events.get_nowait()
        except queue.Empty:
            return None

    def _perform(self, actions: list[Action]) -> None:
        if actions:
            self.performer.perform(actions, self._term)

    def _on_event(self, event: Event) -> list[Action]:
        now, monotonic, election = _now(), time.monotonic(), self.election
        match event:
            case Subscribed(term):
                return self._on_subscribed(term)
            case TermEnded(reason):
                return self._on_term_ended(reason)
            case StopRequested():
                self._stopping = True
                return []
        if event.term != self._term:
            return []
        match event:
            case Delivered(_, delivery):
                return election.on_delivery(delivery, now, monotonic)
            case TickEnded(_, schedule, nominal, error):
                return election.on_tick_ended(schedule, nominal, error, monotonic)
            case TokenEnded(_, message_id, error):
                return election.on_token_ended(message_id, error, monotonic)
            case LeaderAnswered(_, body):
                return election.on_leader_answered(body, now)
            case StoreAnswered(_, ended):
                return election.on_store_answered(ended, monotonic)
            case _:
                assert_never(event)

    # ---- the subscription -------------------------------------------------------------------------------------------

    def _on_subscribed(self, term: int) -> list[Action]:
        self._term = term
        self._report_waiting("")
        if not self._ever_subscribed:
            self._ever_subscribed = True
            self._record()
            self.reporter.send_reliably(Report("consuming"))
        return self.election.on_subscribed()

    def _on_term_ended(self, reason: AmqpWorkerError | ConnectionProblem) -> list[Action]:
        permanent = _permanent(reason)
        if permanent is not None and not self._ever_subscribed:
            self._problem = permanent
        was_subscribed, self._term = self._term > 0, 0
        self._report_waiting(reason.text if isinstance(reason, ConnectionProblem) else str(reason))
        return self.election.on_lost() if was_subscribed else []

    def _report_waiting(self, reason: str) -> None:
        text = redact_text(f"its token queue: {reason}") if reason else ""
        if text != self._waits:
            self._waits = text
            self.reporter.send_reliably(Report("waiting", reason=text))
        if text and not self._ever_subscribed and time.monotonic() >= self._log_at:
            self._log_at = time.monotonic() + LOG_EVERY
            log.warning("worker_waiting", waits_for="its token queue", reason=reason)

    def _misconfigured(self, error: AmqpWorkerError) -> int:
        if not self.reporter.send(Report("misconfigured", reason=redact_text(str(error)))):
            log.error("worker_misconfigured", reason=str(error))
        return MISCONFIGURED

    def _record(self) -> None:
        """Record for the supervisor that this thread is alive, and whether it has a subscription."""
        self.recorder.beat(MAIN)
        self.recorder.record(Counts(), self._term > 0, Gauges())
        self.reporter.flush_pending()


def _permanent(reason: AmqpWorkerError | ConnectionProblem) -> AmqpWorkerError | None:
    """Return why there will never be a subscription, None if waiting may help."""
    if isinstance(reason, ConnectionProblem):
        return reason.error() if reason.kind != "unreachable" else None
    return reason if isinstance(reason, ConfigError | AccessRefused) else None


def _now() -> int:
    return int(time.time() * 1000)
