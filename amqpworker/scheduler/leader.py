"""
The scheduler that leads: it sends ticks, and puts tokens into its queue that hold which are sent.

Decides when a token is put, what a command changes, and when the broker confirms nothing any more. Between two tokens nothing is
lost: the ticks are confirmed, then the new token, then the messages that it replaces are acknowledged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from amqpworker.lifecycle import backoff
from amqpworker.model.headers import time_text
from amqpworker.model.message import Delivery
from amqpworker.scheduler.inbox import Content, Ignored, ListSchedules, Pause, Refused, Resume, TokenMessage
from amqpworker.scheduler.listing import list_of
from amqpworker.scheduler.others import Identity, Others
from amqpworker.scheduler.scheduler_actions import (
    Acknowledge,
    Action,
    AskStore,
    LeaveConnection,
    PutToken,
    SendReply,
    WriteLog,
)
from amqpworker.scheduler.ticks import Ticks
from amqpworker.scheduler.token import Token, token_fields
from amqpworker.schedules.definition import Schedule

# Ticks that are due within this many seconds are sent together, and share a token.
BATCH = 0.05
# Seconds after which a token is put although ticks are not confirmed: it names their schedules, which lag. With many of them
# in flight the leader waits longer, so that the token is short.
PATIENCE = 0.25
PATIENCE_WITH_MANY = 1.0
MANY = 100
# The broker redelivers a token that is not acknowledged for long (its ack timeout).
RENEW_AFTER = 60.0
# Without any confirm for this many seconds a token is put to find out whether the broker confirms anything,
PROBE_AFTER = 2.5
# and after this many the leader leaves its connection.
LEAVE_AFTER = 5.0
# Between two tokens that are refused.
MAX_PAUSE = 10.0
ASK_STORE_EVERY = 5.0
# Milliseconds after which all others have shown what they know; a token by hand then makes up nothing any more.
OTHERS_HAVE_ASKED = 30_000
WARN_EVERY = 60.0
# A clock that is behind the token by fewer milliseconds was corrected, as by NTP.
MIN_CLOCK_DIFFERENCE = 1000


@dataclass(slots=True)
class _PendingToken:
    """A token that was put and is not confirmed yet: what is acknowledged and replied once it is."""

    message_id: str
    token: Token
    deliveries: tuple[Delivery, ...]
    replies: tuple[SendReply, ...]


class Leader:
    """The scheduler `me` as the leader since `now`, which continues from `ticks`; all methods return what to do."""

    def __init__(
        self, me: Identity, schedules: Mapping[str, Schedule], ticks: Ticks, now: int, make_id: Callable[[], str]
    ) -> None:
        self.since = now
        self.ticks = ticks
        self.confirmed: Token | None = None
        """The last token that the broker has confirmed."""
        self._me = me
        self._schedules = schedules
        self._make_id = make_id
        self._others = Others(me)
        self._held: list[Delivery] = []
        """What is acknowledged once the next token is confirmed."""
        self._replies: list[SendReply] = []
        """What is replied then."""
        self._questions: list[Delivery] = []
        """Tokens of others; the reply is the next token, once it is confirmed: others know none that may be lost."""
        self._pending: _PendingToken | None = None
        self._needs_token = True
        """Whether anything has changed, or has arrived to be acknowledged, since a token was put."""
        self._refusals = 0
        self._put_at = -RENEW_AFTER
        self._unconfirmed_since: float | None = None
        self._batch_at = self._ask_at = self._warn_at = 0.0
        self._own_ids: set[str] = set()
        """Of the tokens of this leader that were not delivered to it yet."""
        self.is_stopping = False

    # ---- what arrives -----------------------------------------------------------------------------------------------

    def on_delivery(self, delivery: Delivery, content: Content, monotonic: float) -> list[Action]:
        """Take a message from the queue; it is acknowledged once a token holds its content."""
        self._held.append(delivery)
        if delivery.properties.message_id in self._own_ids:
            self._own_ids.discard(str(delivery.properties.message_id))
            return []
        self._needs_token = True
        match content:
            case TokenMessage():
                return self._on_token(delivery, content, monotonic)
            case Pause() | Resume():
                return self._on_command(delivery, content, monotonic)
            case ListSchedules():
                return [SendReply(delivery, self._listing(monotonic))]
            case Refused():
                return refusal(delivery, content)
            case Ignored():
                return []
            case _:
                assert_never(content)

    def _on_token(self, delivery: Delivery, content: TokenMessage, monotonic: float) -> list[Action]:
        actions: list[Action] = []
        if content.token is not None and self._is_news(content.token):
            self.ticks.adopt(content.token)
            fields = {"until": time_text(content.token.until), "leader": content.token.leader}
            actions.append(WriteLog("warning", "token_adopted", fields))
        self._questions.append(delivery)
        return actions + self._others.on_seen(content.scheduler, content.fingerprint, monotonic)

    def _is_news(self, token: Token) -> bool:
        """Return whether a token holds what this leader does not know: it is later, or the only one after a loss of all."""
        is_own = (token.leader, token.since) == (self._me.label, self.since)
        may_be_known = self.ticks.is_blank and self.ticks.until - self.since < OTHERS_HAVE_ASKED
        return not is_own and (may_be_known or token.until > self.ticks.until)

    def _on_command(self, delivery: Delivery, command: Pause | Resume, monotonic: float) -> list[Action]:
        name = command.schedule
        if name not in self._schedules:
            return refusal(delivery, Refused(f"Unknown schedule {name!r:.80}."), "unknown-schedule")
        actions: list[Action] = []
        if paused := isinstance(command, Pause):
            actions += self.ticks.pause(name, command.at, monotonic)
        else:
            self.ticks.resume(name, command.at)
        self._replies.append(SendReply(delivery, {"schedule": name, "paused": paused}))
        event = "schedule_paused" if paused else "schedule_resumed"
        return [*actions, WriteLog("info", event, {"schedule": name})]

    def _listing(self, monotonic: float) -> dict[str, Any]:
        return {
            "scheduler": self._me.scheduler,
            "leader": self._me.label,
            "since": time_text(self.since),
            "until": time_text(self.ticks.until),
            "schedules": list_of(self.ticks),
            "differing": self._others.differing(monotonic),
        }

    # ---- what has become of ticks and tokens ------------------------------------------------------------------------

    def on_tick_ended(self, schedule: str, nominal: int, error: str | None, monotonic: float) -> None:
        """A tick was confirmed, or refused for this reason."""
        self.ticks.on_tick_ended(schedule, nominal, error, monotonic)
        self._needs_token = True
        if error is None:
            self._note_confirm(monotonic)

    def on_token_ended(self, message_id: str, error: str | None, monotonic: float) -> list[Action]:
        """A token was confirmed, or refused for this reason."""
        pending = self._pending
        if pending is None or pending.message_id != message_id:
            return []
        self._pending = None
        if error is not None:
            self._needs_token = True
            self._own_ids.discard(message_id)
            self._held[:0] = pending.deliveries
            self._replies[:0] = pending.replies
            self._refusals += 1
            # Later than now, so that the next one is not put at once.
            self._put_at = monotonic + backoff(PATIENCE, MAX_PAUSE, self._refusals)
            return [WriteLog("warning", "token_not_confirmed", {"reason": error, "effect": "put again"})]
        self._refusals = 0
        self._note_confirm(monotonic)
        self.confirmed = pending.token
        return [Acknowledge(pending.deliveries), *pending.replies]

    def _note_confirm(self, monotonic: float) -> None:
        """Note that the broker confirms: what is still unconfirmed is waited for from now on."""
        self._unconfirmed_since = monotonic if self.ticks.in_flight or self._pending is not None else None

    def on_store_answered(self, ended: Mapping[tuple[str, int], bool | None], monotonic: float) -> list[Action]:
        """The result store has answered which tasks have ended, None if that is not known."""
        actions, changed = self.ticks.on_store_answered(ended, monotonic)
        self._needs_token = self._needs_token or changed
        return actions

    # ---- what is due ------------------------------------------------------------------------------------------------

    def turn(self, now: int, monotonic: float, is_blocked: bool) -> list[Action]:
        """Return what is due; a broker that `is_blocked` has an alarm, and is waited for."""
        actions: list[Action] = []
        if not self.is_stopping and monotonic >= self._batch_at:
            actions += self._send_due(now, monotonic)
        actions += self.ticks.log_lines()
        actions += self._warn_of_clock(now, monotonic)
        if self._must_put(monotonic):
            actions.append(self._put(monotonic))
        if not self._awaits_confirms:
            self._unconfirmed_since = None
        elif self._unconfirmed_since is None or is_blocked:
            self._unconfirmed_since = monotonic
        elif monotonic - self._unconfirmed_since >= LEAVE_AFTER:
            self._unconfirmed_since = monotonic
            return [*actions, LeaveConnection("the broker has confirmed nothing for 5 s")]
        return actions

    @property
    def _awaits_confirms(self) -> bool:
        return self.ticks.in_flight > 0 or self._pending is not None

    def _send_due(self, now: int, monotonic: float) -> Sequence[Action]:
        actions = self.ticks.send_due(now, monotonic)
        if actions:
            self._batch_at = monotonic + BATCH
        if monotonic >= self._ask_at:
            self._ask_at = monotonic + ASK_STORE_EVERY
            if ticks := self.ticks.ticks_to_ask():
                actions.append(AskStore(ticks))
        return actions

    def _must_put(self, monotonic: float) -> bool:
        if self._pending is not None:
            return False
        passed = monotonic - self._put_at
        if self.ticks.in_flight and not self.is_stopping:
            silent = self._unconfirmed_since is not None and monotonic - self._unconfirmed_since >= PROBE_AFTER
            return silent or (self._needs_token and passed >= self._patience)
        return passed >= RENEW_AFTER or (self._needs_token and passed >= BATCH)

    @property
    def _patience(self) -> float:
        return PATIENCE if self.ticks.in_flight < MANY else PATIENCE_WITH_MANY

    def _put(self, monotonic: float) -> PutToken:
        message_id = self._make_id()
        self._own_ids.add(message_id)
        self.ticks.number += 1
        token = self._token()
        if self._questions:
            reply = {**token_fields(token), "schedules": self._me.fingerprint}
            self._replies += [SendReply(question, reply) for question in self._questions]
        self._pending = _PendingToken(message_id, token, tuple(self._held), tuple(self._replies))
        self._held, self._replies, self._questions = [], [], []
        self._needs_token = False
        self._put_at = monotonic
        return PutToken(self._pending.token, message_id)

    def _token(self) -> Token:
        ticks = self.ticks
        return Token(
            ticks.until,
            ticks.lagging(),
            dict(ticks.paused),
            dict(ticks.running),
            self._me.label,
            self.since,
            ticks.number,
        )

    def _warn_of_clock(self, now: int, monotonic: float) -> list[Action]:
        """Warn once per minute while the clock is behind the token: nothing is sent until it has passed it."""
        if now + MIN_CLOCK_DIFFERENCE >= self.ticks.until or monotonic < self._warn_at:
            return []
        self._warn_at = monotonic + WARN_EVERY
        fields = {"until": time_text(self.ticks.until), "clock": time_text(now)}
        return [WriteLog("warning", "clock_behind_token", {**fields, "effect": "no tick is sent until then"})]

    def seconds_left(self, now: int, monotonic: float) -> float:
        """Return the seconds until something may be due; an answer may come before."""
        left = None if self.is_stopping else self.ticks.seconds_left(now, monotonic)
        due = [RENEW_AFTER if left is None else max(left, self._batch_at - monotonic)]
        if self._pending is None and (self._needs_token or self.ticks.in_flight):
            due.append(max(BATCH, self._put_at + (self._patience if self.ticks.in_flight else BATCH) - monotonic))
        return max(0.0, min(due))

    # ---- the end ----------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Send no further tick."""
        self.is_stopping = True

    @property
    def has_settled(self) -> bool:
        """Whether nothing is in flight, and the last token holds everything."""
        return not self._awaits_confirms and not self._needs_token


def refusal(delivery: Delivery, refused: Refused, reason: str = "refused") -> list[Action]:
    """Return what is done with a message that cannot be used."""
    event = "token_refused" if refused.is_token else "command_refused"
    fields = {"id": delivery.properties.message_id, "reason": refused.reason, "effect": "it is acknowledged"}
    return [WriteLog("warning", event, fields), SendReply(delivery, reason=reason, error=refused.reason)]
