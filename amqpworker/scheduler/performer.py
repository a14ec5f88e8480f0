"""
Acts on what the scheduler has decided: the only place that publishes ticks and tokens, and acknowledges tokens and commands.

Each action belongs to a term of the subscription (`broker.token_queue`): once that has ended, nothing is published or
acknowledged, since another scheduler may lead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import assert_never

from pydantic_core import to_json

from amqpworker.broker.lane import Lane
from amqpworker.broker.token_queue import TokenQueue
from amqpworker.client.calls import Calls, PendingCall
from amqpworker.errors import AmqpWorkerError
from amqpworker.ipc.pipes import Report, Reporter
from amqpworker.log.logger import get_logger
from amqpworker.model.headers import time_text
from amqpworker.model.message import Publication, new_id
from amqpworker.model.outcome import Failure
from amqpworker.model.reply import encode_done, encode_failed
from amqpworker.routing.envelope import is_valid_reply_to, publication_of_reply, publication_of_send
from amqpworker.routing.queues import Plan, Requirement
from amqpworker.routing.schedule_messages import publication_of_token
from amqpworker.scheduler.others import Identity
from amqpworker.scheduler.scheduler_actions import (
    Acknowledge,
    Action,
    AskLeader,
    AskStore,
    LeaveConnection,
    PutToken,
    ReportLeader,
    SendReply,
    SendTick,
    WriteLog,
)
from amqpworker.scheduler.scheduler_events import Event, LeaderAnswered, TickEnded, TokenEnded
from amqpworker.scheduler.store_queries import StoreQueries
from amqpworker.scheduler.token import Token, token_fields
from amqpworker.schedules.definition import Schedule
from amqpworker.schedules.tick import tick_message

log = get_logger("amqpworker.scheduler")

# A tick that is not confirmed within this many seconds lags, and is sent again with the same id.
TICK_TIMEOUT = 10.0
# Longer than the leader waits before it leaves its connection.
TOKEN_TIMEOUT = 60.0
REPLY_TIMEOUT = 10.0


@dataclass(eq=False)
class Performer:
    """Performs the actions of the scheduler `me`; what follows from them is reported to `on_event`, in other threads."""

    me: Identity
    schedules: Mapping[str, Schedule]
    queue: TokenQueue
    plan: Plan
    reporter: Reporter
    store_queries: StoreQueries | None
    """None if no schedule needs the result store."""
    on_event: Callable[[Event], None]
    _question: _LeaderCall | None = field(default=None, init=False)
    """The last one; an earlier one is not answered any more."""

    def perform(self, actions: Iterable[Action], term: int) -> None:
        """Perform actions of this term."""
        for action in actions:
            match action:
                case SendTick():
                    self._send_tick(action, term)
                case PutToken(token, message_id):
                    self._put_token(token, message_id, term)
                case AskLeader(token):
                    self._ask_leader(token, term)
                case Acknowledge(deliveries):
                    self.queue.acknowledge(term, deliveries)
                case SendReply():
                    self._reply(action, term)
                case AskStore(ticks):
                    assert self.store_queries is not None  # else overlap="skip" is a ConfigError
                    self.store_queries.ask(term, ticks)
                case ReportLeader(leads, leader, since):
                    self._report(leads, leader, since)
                case LeaveConnection(reason):
                    log.warning("broker_unresponsive", connection="scheduler", reason=reason, effect="connecting again")
                    self.queue.leave(term, reason)
                case WriteLog(level, event, fields):
                    getattr(log, level)(event, **fields)
                case _:
                    assert_never(action)

    def _send_tick(self, action: SendTick, term: int) -> None:
        name, nominal = action.schedule, action.nominal

        def on_ended(error: AmqpWorkerError | None) -> None:
            self.on_event(TickEnded(term, name, nominal, None if error is None else str(error)))

        try:
            message = tick_message(self.schedules[name], self.me.namespace, self.me.scheduler, nominal)
            publication = publication_of_send(message, self.plan.names, time.time(), self.queue.session.settings.app_id)
            required = self.plan.requirements(message.queue, delayed=message.delay is not None)
            self._publish(self.queue.sends, publication, term, TICK_TIMEOUT, on_ended, required)
        except AmqpWorkerError as error:
            on_ended(error)

    def _put_token(self, token: Token | None, message_id: str, term: int) -> None:
        """Publish a token on the channel for copies, which replace deliveries: it is not closed by a tick that is refused."""

        def on_ended(error: AmqpWorkerError | None) -> None:
            self.on_event(TokenEnded(term, message_id, None if error is None else str(error)))

        body = to_json(token_fields(token))
        publication = publication_of_token(body, self.me.scheduler, message_id, self.plan.names, time.time())
        self._publish(self.queue.copies, publication, term, TOKEN_TIMEOUT, on_ended, self.queue.requirements)

    def _ask_leader(self, token: Token | None, term: int) -> None:
        calls = self.queue.session.calls
        if self._question is not None:
            self._question.forget()
        call = self._question = calls.add(_LeaderCall(calls, lambda body: self.on_event(LeaderAnswered(term, body))))
        fields = {**token_fields(token), "scheduler": self.me.label, "schedules": self.me.fingerprint}
        names, now = self.plan.names, time.time()
        publication = publication_of_token(
            to_json(fields), self.me.scheduler, new_id(), names, now, call.correlation_id
        )
        self._publish(self.queue.calls, publication, term, TICK_TIMEOUT, lambda _: None, self.queue.requirements)

    def _reply(self, action: SendReply, term: int) -> None:
        reply_to = action.delivery.properties.reply_to
        if not reply_to or not is_valid_reply_to(reply_to):
            return
        if action.reason:
            body = encode_failed(action.reason, Failure(text=action.error))
        else:
            body = encode_done(to_json(action.value))
        self._publish(
            self.queue.replies, publication_of_reply(action.delivery, body), term, REPLY_TIMEOUT, lambda _: None
        )

    def _publish(
        self,
        lane: Lane,
        publication: Publication,
        term: int,
        timeout: float,
        on_ended: Callable[[AmqpWorkerError | None], None],
        required: tuple[Requirement, ...] = (),
    ) -> None:
        pending = lane.make_pending(publication, required, timeout, on_ended)
        pending.resend = False
        # Not on the next connection, where another scheduler may lead.
        pending.wanted = lambda: self.queue.term == term
        lane.submit(pending)

    def _report(self, leads: bool, leader: str, since: int) -> None:
        self.reporter.send_reliably(
            Report("leading", leads=leads, leader=leader, since=time_text(since) if leader else "")
        )


class _LeaderCall(PendingCall):
    """The question who leads; no thread waits for the answer."""

    __slots__ = ("_on_body",)

    def __init__(self, calls: Calls, on_body: Callable[[bytes], None]) -> None:
        super().__init__(calls)
        self._on_body = on_body

    def _wake(self) -> None:
        if self._body is not None:
            self._on_body(self._body)
