"""A scheduler process in simulated time: an election whose actions are performed as `performer` and `main_loop` do it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Protocol

from pydantic_core import to_json

from amqpworker.model.message import Delivery, Properties
from amqpworker.model.outcome import Failure
from amqpworker.model.reply import encode_done, encode_failed
from amqpworker.scheduler.election import Election
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
from amqpworker.scheduler.token import token_fields
from amqpworker.schedules.definition import Schedule, fingerprint
from tests.unit.scheduler.simulated_broker import START, Broker, Client, Connection

RESULT_TTL = 40_000
TICK_TIMEOUT = 10_000
TOKEN_TIMEOUT = 60_000
MAX_WAIT = 1_000
_pids = count(1)


OnConfirm = Callable[[str | None], None]
OnAnswer = Callable[[Mapping[tuple[str, int], bool | None]], None]


class Surroundings(Protocol):
    """What a scheduler publishes to, besides its own queue."""

    broker: Broker

    def on_sending(self, scheduler: SimulatedScheduler, action: SendTick) -> None:
        """A scheduler has decided to send a tick."""

    def send_tick(self, action: SendTick, clock: int, on_confirm: OnConfirm) -> None:
        """A tick arrives in the broker; its sender's clock is given."""

    def on_put(self, body: bytes) -> None:
        """A scheduler has decided to put a token."""

    def on_reply(self, reply_to: str, body: bytes) -> None:
        """A reply arrives in the broker."""

    def ask_store(self, ticks: tuple[tuple[str, int], ...], on_answer: OnAnswer) -> None:
        """The store is asked."""

    def on_log(self, scheduler: SimulatedScheduler, line: WriteLog) -> None:
        """A log line was written."""


class SimulatedScheduler(Client):
    """One process, from its start to its end; `offset` is how far its clock is ahead, in milliseconds."""

    def __init__(self, world: Surroundings, schedules: Mapping[str, Schedule], offset: int) -> None:
        self.world = world
        self.offset = offset
        self.schedules = schedules
        self.is_alive, self.is_frozen, self.is_stopping = True, False, False
        self.label = f"host:{next(_pids)}"
        self._ids = count(1)
        me = Identity("amqpworker", "main", self.label, fingerprint(schedules.values()))
        self.election = Election(me, schedules, RESULT_TTL, (self.wall, self.monotonic), self._make_id)
        self.connection: Connection | None = None
        self.term = 0
        """The present term, 0 if there is no subscription."""
        self._terms = 0
        self._events: list[tuple[int, Callable[[], list[Action]]]] = []
        self._wakes = 0
        self._connect()
        self._step_soon()

    def _make_id(self) -> str:
        return f"{self.label}-{next(self._ids)}"

    @property
    def wall(self) -> int:
        """What its clock shows."""
        return self.world.broker.time.now + self.offset

    @property
    def monotonic(self) -> float:
        """Its monotonic clock, in seconds."""
        return (self.world.broker.time.now - START) / 1000 + 1000

    @property
    def leads(self) -> bool:
        """Whether it leads."""
        return self.is_alive and self.election.leader is not None

    # ---- faults -----------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """End it, as by kill -9."""
        self.is_alive = False
        if self.connection is not None:
            self.connection.close()

    def freeze(self, milliseconds: int) -> None:
        """Have it do nothing for a while; the broker gives it up after some heartbeats."""
        self.is_frozen = True
        connection, time = self.connection, self.world.broker.time

        def give_up() -> None:
            if connection is not None and self.is_frozen:
                connection.close()

        def thaw() -> None:
            self.is_frozen = False
            self._step_soon()

        time.after(10_000, give_up)
        time.after(milliseconds, thaw)

    def deafen(self) -> None:
        """Lose what the broker sends; it notices by the heartbeats that do not arrive, if not before."""
        if (connection := self.connection) is not None:
            connection.is_deaf = True
            self.world.broker.time.after(15_000, connection.close)

    def stop(self) -> None:
        """Stop it, as by SIGTERM."""
        self.is_stopping = True
        self.election.stop()
        self._step_soon()
        self.world.broker.time.after(5_000, self.kill)

    # ---- the subscription -------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self.is_alive and not self.is_stopping:
            self._terms += 1
            self.connection = self.world.broker.connect(self)

    def on_subscribed(self, connection: Connection) -> None:
        """Begin a term."""
        if connection is self.connection and connection.is_open:
            self._post(0, self._begin_term)

    def _begin_term(self) -> list[Action]:
        self.term = self._terms
        return self.election.on_subscribed()

    def on_delivery(self, connection: Connection, delivery: Delivery) -> None:
        """Pass on a message."""
        if connection is self.connection and connection.is_open:
            self._post(self._terms, lambda: self.election.on_delivery(delivery, self.wall, self.monotonic))

    def on_lost(self, connection: Connection) -> None:
        """End the term, and connect again soon."""
        if connection is self.connection:
            self.connection = None
            self._post(0, self._end_term)
            time = self.world.broker.time
            time.after(time.between(200, 400), self._connect)

    def _end_term(self) -> list[Action]:
        was_subscribed, self.term = self.term > 0, 0
        return self.election.on_lost() if was_subscribed else []

    # ---- the main loop ----------------------------------------------------------------------------------------------

    def _post(self, term: int, event: Callable[[], list[Action]]) -> None:
        self._events.append((term, event))
        self._step_soon()

    def _step_soon(self) -> None:
        self._wake_after(0)

    def _wake_after(self, milliseconds: float) -> None:
        self._wakes += 1
        wakes = self._wakes
        self.world.broker.time.after(milliseconds, lambda: self._step() if wakes == self._wakes else None)

    def _step(self) -> None:
        if not self.is_alive or self.is_frozen:
            return
        events, self._events = self._events, []
        for term, event in events:
            if term in {0, self.term}:
                self._perform(event())
        self._perform(self.election.turn(self.wall, self.monotonic, self.world.broker.has_alarm))
        if self.is_stopping and self.election.has_settled:
            self.kill()
        self._wake_after(max(1, min(MAX_WAIT, 1000 * self.election.seconds_left(self.wall, self.monotonic))))

    # ---- actions ----------------------------------------------------------------------------------------------------

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case WriteLog():
                    self.world.on_log(self, action)
                case ReportLeader():
                    pass
                case AskStore(ticks):
                    term = self.term
                    self.world.ask_store(
                        ticks,
                        lambda ended, term=term: self._post(  # type: ignore[misc]
                            term, lambda: self.election.on_store_answered(ended, self.monotonic)
                        ),
                    )
                case _ if self.connection is None or not self.term:
                    pass
                case LeaveConnection():
                    self.connection.close()
                case _:
                    self._write(action, self.connection)

    def _write(self, action: Action, connection: Connection) -> None:
        world, election = self.world, self.election
        match action:
            case SendTick(name, nominal):
                world.on_sending(self, action)
                on_confirm = self._answer(
                    TICK_TIMEOUT, lambda error: election.on_tick_ended(name, nominal, error, self.monotonic)
                )
                connection.write("ticks", lambda: world.send_tick(action, self.wall, on_confirm))
            case PutToken(token, message_id):
                body = to_json(token_fields(token))
                world.on_put(body)
                on_confirm = self._answer(
                    TOKEN_TIMEOUT, lambda error: election.on_token_ended(message_id, error, self.monotonic)
                )
                connection.write(
                    "tokens", lambda: self._put(Properties(type="token", message_id=message_id), body, on_confirm)
                )
            case AskLeader(token):
                fields = {
                    **token_fields(token),
                    "scheduler": self.label,
                    "schedules": fingerprint(self.schedules.values()),
                }
                asked = Properties(type="token", message_id=self._make_id(), reply_to=f"{self.label} {self.term}")
                connection.write("calls", lambda: self._put(asked, to_json(fields), lambda _: None))
            case Acknowledge(deliveries):
                connection.acknowledge([delivery.tag for delivery in deliveries])
            case SendReply(delivery, value, reason, error):
                reply_to = delivery.properties.reply_to
                body = encode_failed(reason, Failure(text=error)) if reason else encode_done(to_json(value))
                if reply_to is not None:
                    connection.write("replies", lambda: world.on_reply(reply_to, body))

    def on_leader_answered(self, term: int, body: bytes) -> None:
        """Pass on what the leader has answered."""
        self._post(term, lambda: self.election.on_leader_answered(body, self.wall))

    def _put(self, properties: Properties, body: bytes, on_confirm: OnConfirm) -> None:
        broker = self.world.broker
        luck = broker.time.random.random()
        if luck < 0.02:
            on_confirm("nacked")
            return
        broker.put(properties, body)
        broker.confirm(lambda: on_confirm("nacked, although it is in the queue" if luck > 0.98 else None))

    def _answer(self, timeout: int, on_ended: Callable[[str | None], list[Action]]) -> OnConfirm:
        """Return what reports the confirm of a publication, once: late, and in any order; or that none has arrived."""
        connection, term, time = self.connection, self.term, self.world.broker.time
        assert connection is not None
        ended: list[str | None] = []

        def end(error: str | None) -> None:
            if not ended:
                ended.append(error)
                self._post(term, lambda: on_ended(error))

        def on_confirm(error: str | None) -> None:
            connection.respond(lambda: end(error), longest=time.random.choice((2, 20, 300)))

        time.after(timeout, lambda: end("no confirm"))
        return on_confirm
