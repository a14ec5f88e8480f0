"""One election whose clock a test moves, and whose actions it sees."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic_core import to_json

from amqpworker.model.headers import time_text
from amqpworker.model.message import Delivery, Message, Properties
from amqpworker.scheduler.election import Election
from amqpworker.scheduler.leader import Leader
from amqpworker.scheduler.others import Identity
from amqpworker.scheduler.scheduler_actions import (
    Acknowledge,
    Action,
    AskStore,
    PutToken,
    SendReply,
    SendTick,
    WriteLog,
)
from amqpworker.scheduler.token import Token, token_fields
from amqpworker.schedules.definition import Misfire, Overlap, Schedule, Timing
from amqpworker.schedules.interval import Interval

NOW = 1_767_225_600_000
SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000
RESULT_TTL = 100 * SECOND
A = TypeVar("A", bound=Action)


def each(
    seconds: float | Timing,
    name: str = "s",
    misfire: Misfire = "once",
    overlap: Overlap = "allow",
    grace: float = 60,
) -> Schedule:
    """Return a schedule with a time each N seconds, or with other times."""
    message: Message[Any] = Message("task", "queue", b"{}", "1")
    timing = Interval(int(seconds * 1000)) if isinstance(seconds, int | float) else seconds
    return Schedule(name, message, timing, misfire=misfire, overlap=overlap, grace=grace)


class ElectionScene:
    """An election at 2026-01-01T00:00Z; `actions` are all that it has returned so far."""

    def __init__(self, *schedules: Schedule) -> None:
        self.now, self.monotonic, self.is_blocked = NOW, 1000.0, False
        self.actions: list[Action] = []
        self._ids = (f"id-{number}" for number in itertools.count(1))
        self._tags = itertools.count(1)
        me = Identity("amqpworker", "main", "host:1", "mine")
        clock = self.now, self.monotonic
        by_name = {schedule.name: schedule for schedule in schedules}
        self.election = Election(me, by_name, RESULT_TTL, clock, lambda: next(self._ids))

    def _note(self, actions: Sequence[Action]) -> list[Action]:
        self.actions += actions
        return list(actions)

    # ---- what happens -----------------------------------------------------------------------------------------------

    def receive(self, kind: str, body: Any = b"{}", **properties: Any) -> Delivery:
        """Have a message arrive; its body may be a token."""
        fields = token_fields(body) if isinstance(body, Token) else body
        content = fields if isinstance(fields, bytes) else to_json(fields)
        given: dict[str, Any] = {"message_id": "foreign", "reply_to": "r", **properties}
        delivery = Delivery(next(self._tags), False, "", "", Properties(type=kind, **given), content)
        self._note(self.election.on_delivery(delivery, self.now, self.monotonic))
        return delivery

    def lead(self, *tokens: Token | bytes) -> Leader:
        """Subscribe, and receive tokens and what was put last; the leader's first turn is not taken yet."""
        self._note(self.election.on_subscribed())
        for token in tokens or (b"{}",):
            self.receive("token", token)
        put = self.last(PutToken)
        self.receive("token", token_fields(put.token), message_id=put.message_id)
        return self.leader

    def turn(self, seconds: float = 0) -> list[Action]:
        """Let time pass, and return what is due then."""
        self.now += round(seconds * 1000)
        self.monotonic = round(self.monotonic + seconds, 3)
        return self._note(self.election.turn(self.now, self.monotonic, self.is_blocked))

    def end_tick(self, tick: SendTick, error: str | None = None) -> None:
        """Confirm a tick, or refuse it."""
        self._note(self.election.on_tick_ended(tick.schedule, tick.nominal, error, self.monotonic))

    def end_token(self, put: PutToken, error: str | None = None) -> list[Action]:
        """Confirm a token, or refuse it."""
        return self._note(self.election.on_token_ended(put.message_id, error, self.monotonic))

    def confirm(self, actions: Sequence[Action]) -> None:
        """Confirm all ticks and tokens among these actions."""
        for action in actions:
            if isinstance(action, SendTick):
                self.end_tick(action)
            elif isinstance(action, PutToken):
                self.end_token(action)

    def run(self, seconds: float, step: float = 0.5, refused: Sequence[str] = ()) -> list[Action]:
        """Let time pass with a broker that confirms at once, except for what it refuses; return what was done."""
        before = len(self.actions)
        for _ in range(round(seconds / step)):
            for action in self.turn(step):
                if isinstance(action, SendTick) and action.schedule in refused:
                    self.end_tick(action, "refused")
                else:
                    self.confirm([action])
        return self.actions[before:]

    def store_answers(self, ended: bool | None) -> list[Action]:
        """Answer the last question to the result store."""
        ticks = self.last(AskStore).ticks
        return self._note(self.election.on_store_answered(dict.fromkeys(ticks, ended), self.monotonic))

    # ---- what is seen -----------------------------------------------------------------------------------------------

    @property
    def leader(self) -> Leader:
        """The leader; it must lead."""
        assert self.election.leader is not None
        return self.election.leader

    def last(self, kind: type[A]) -> A:
        """Return the last action of a kind."""
        return of(self.actions, kind)[-1]

    def commit(self) -> Token:
        """Have the leader put a token, for a question that arrives, confirm all, and return it."""
        self.receive("list")
        before = len(of(self.actions, PutToken))
        while len(of(self.actions, PutToken)) == before:
            self.confirm(self.turn(0.1))
        token = self.last(PutToken).token
        assert token is not None
        return token

    def events(self) -> list[str]:
        """Return the names of all log lines."""
        return [line.event for line in of(self.actions, WriteLog)]

    def line(self, event: str) -> dict[str, Any]:
        """Return the fields of the only log line of this name."""
        (found,) = [line for line in of(self.actions, WriteLog) if line.event == event]
        return found.fields

    def acknowledged(self) -> list[int]:
        """Return the tags of all that was acknowledged."""
        return [delivery.tag for action in of(self.actions, Acknowledge) for delivery in action.deliveries]

    def replies(self, delivery: Delivery) -> list[SendReply]:
        """Return the replies to a command."""
        return [reply for reply in of(self.actions, SendReply) if reply.delivery is delivery]


def of(actions: Sequence[Action], kind: type[A]) -> list[A]:
    """Return the actions of a kind."""
    return [action for action in actions if isinstance(action, kind)]


def seconds(actions: Sequence[Action], name: str = "s") -> list[float]:
    """Return the nominal times of a schedule's ticks that are sent, in seconds after NOW."""
    return [(tick.nominal - NOW) / 1000 for tick in of(actions, SendTick) if tick.schedule == name]


def text(at: float) -> str:
    """Return the time that is this many seconds after NOW, as it is written."""
    return time_text(NOW + round(at * 1000))
