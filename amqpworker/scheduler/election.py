"""
Which scheduler of a name leads: the one that receives the token.

All of them consume one queue, of which the broker activates one consumer (https://www.rabbitmq.com/docs/consumers#single-active-consumer).
Decides when a scheduler has received everything that waits there, and which token it starts from. There may be none, several
or forged ones: so each scheduler puts one at its start, empty if it knows none, and the leader starts from the one with the
latest time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from amqpworker.model.headers import time_text
from amqpworker.model.message import Delivery
from amqpworker.scheduler.clock_steps import ClockSteps
from amqpworker.scheduler.inbox import Content, TokenMessage, read
from amqpworker.scheduler.leader import LEAVE_AFTER, Leader
from amqpworker.scheduler.others import Identity
from amqpworker.scheduler.scheduler_actions import Action, AskLeader, LeaveConnection, PutToken, ReportLeader, WriteLog
from amqpworker.scheduler.ticks import Ticks
from amqpworker.scheduler.token import MalformedToken, Token, is_too_far_ahead, latest_of, read_object, read_token
from amqpworker.schedules.definition import Schedule

# A scheduler that does not lead asks who does: so it knows a recent token, and a queue that was purged has a token again.
ASK_EVERY = 10.0
# After this many questions without an answer the broker may have lost the consumer.
MOST_UNANSWERED = 4
PUT_AGAIN_AFTER = 1.0
# With this many messages it leads before it has received all of them: the prefetch is limited.
MOST_GATHERED = 60_000


class Election:
    """One scheduler, from its start to its end: a standby, or the leader. All methods return what to do."""

    def __init__(
        self,
        me: Identity,
        schedules: Mapping[str, Schedule],
        result_ttl: int,
        clock: tuple[int, float],
        make_id: Callable[[], str],
    ) -> None:
        self.leader: Leader | None = None
        self._me = me
        self._schedules = schedules
        self._result_ttl = result_ttl
        self._make_id = make_id
        self._clock_steps = ClockSteps(*clock)
        self._known_token: Token | None = None
        """The latest token that this scheduler knows, from the leader's reply or since it has led."""
        self._is_subscribed = False
        self._ask_at = 0.0
        self._unanswered = 0
        self._marker_id = ""
        """The id of the token that is put behind all messages that wait: once it is delivered, they were, too."""
        self._unconfirmed_since: float | None = None
        """Since when that token waits for its confirm."""
        self._gathered: list[tuple[Delivery, Content]] = []
        self._logged_leader = ("", 0, "")
        """The leader that was logged last, since when it leads, and the hash of its schedules."""

    # ---- the subscription -------------------------------------------------------------------------------------------

    def on_subscribed(self) -> list[Action]:
        """The broker has confirmed the consumer: the first delivery shows that it is active."""
        self._reset()
        self._is_subscribed = True
        return []  # `turn` asks at once who leads

    def on_lost(self) -> list[Action]:
        """The subscription was lost, and with it the leadership: the broker redelivers the token."""
        was_leading = self.leader is not None and not self.leader.is_stopping
        self._reset()
        self._is_subscribed = False
        lines: list[Action] = []
        if was_leading:
            lines.append(WriteLog("warning", "scheduler_lost_leadership", {"scheduler": self._me.scheduler}))
        return [*lines, ReportLeader(False, "", 0)]

    def _reset(self) -> None:
        if self.leader is not None and self.leader.confirmed is not None:
            self._known_token = self.leader.confirmed
        self.leader = None
        self._marker_id = ""
        self._unconfirmed_since = None
        self._gathered = []
        self._ask_at = 0.0
        self._unanswered = 0
        self._logged_leader = ("", 0, "")

    def on_delivery(self, delivery: Delivery, now: int, monotonic: float) -> list[Action]:
        """Take a message: this scheduler is active."""
        content = read(delivery, now)
        if self.leader is not None:
            return self.leader.on_delivery(delivery, content, monotonic)
        self._gathered.append((delivery, content))
        if not self._marker_id:
            return self._put_marker(monotonic)
        if delivery.properties.message_id == self._marker_id or len(self._gathered) >= MOST_GATHERED:
            return self._lead(now, monotonic)
        return []

    def _put_marker(self, monotonic: float) -> list[Action]:
        self._marker_id = self._make_id()
        self._unconfirmed_since = monotonic
        return [PutToken(self._known_token, self._marker_id)]

    def _lead(self, now: int, monotonic: float) -> list[Action]:
        tokens = [content.token for _, content in self._gathered if isinstance(content, TokenMessage)]
        known = [
            token for token in (self._known_token, *tokens) if token is not None and not is_too_far_ahead(token, now)
        ]
        token = latest_of(known)
        ticks = Ticks(self._schedules, token, now, self._result_ttl)
        self.leader = Leader(self._me, self._schedules, ticks, now, self._make_id)
        fields: dict[str, Any] = {"scheduler": self._me.scheduler, "schedules": len(self._schedules)}
        actions: list[Action] = [ReportLeader(True, self._me.label, now)]
        if token is None:
            effect = (
                "ticks before now are not sent, and nothing is paused; at the very first start this is as it should be"
            )
            actions.append(WriteLog("warning", "token_missing", {**fields, "since": time_text(now), "effect": effect}))
        else:
            fields |= {"until": time_text(token.until), "before": token.leader}
        actions.append(WriteLog("info", "scheduler_leading", fields))
        gathered, self._gathered = self._gathered, []
        for delivery, content in gathered:
            actions += self.leader.on_delivery(delivery, content, monotonic)
        return actions

    # ---- answers ----------------------------------------------------------------------------------------------------

    def on_token_ended(self, message_id: str, error: str | None, monotonic: float) -> list[Action]:
        """A token was confirmed, or refused for this reason."""
        if self.leader is not None:
            return self.leader.on_token_ended(message_id, error, monotonic)
        if message_id == self._marker_id:
            self._unconfirmed_since = None
            if error is not None:
                # The next delivery puts another one: that of the question who leads.
                self._marker_id = ""
                self._ask_at = min(self._ask_at, monotonic + PUT_AGAIN_AFTER)
        return []

    def on_tick_ended(self, schedule: str, nominal: int, error: str | None, monotonic: float) -> list[Action]:
        """A tick was confirmed, or refused for this reason."""
        if self.leader is not None:
            self.leader.on_tick_ended(schedule, nominal, error, monotonic)
        return []

    def on_store_answered(self, ended: Mapping[tuple[str, int], bool | None], monotonic: float) -> list[Action]:
        """The result store has answered which tasks have ended."""
        return [] if self.leader is None else self.leader.on_store_answered(ended, monotonic)

    def on_leader_answered(self, body: bytes, now: int) -> list[Action]:
        """The leader has answered who it is, with its token."""
        if self.leader is not None:
            return []
        self._unanswered = 0
        try:
            fields = read_object(body)
            value = fields.get("value") if fields.get("status") == "done" else None
            token = read_token(value) if isinstance(value, dict) else None
        except MalformedToken:
            return []
        if token is None or is_too_far_ahead(token, now):
            return []
        self._known_token = latest_of([*filter(None, [self._known_token]), token])
        return self._on_heard_of(token, str(value.get("schedules", "")) if isinstance(value, dict) else "")

    def _on_heard_of(self, token: Token, fingerprint: str) -> list[Action]:
        actions: list[Action] = [ReportLeader(False, token.leader, token.since)]
        if self._logged_leader == (token.leader, token.since, fingerprint):
            return []
        self._logged_leader = token.leader, token.since, fingerprint
        fields = {"scheduler": self._me.scheduler, "leader": token.leader}
        actions.append(WriteLog("info", "scheduler_standby", {**fields, "since": time_text(token.since)}))
        if fingerprint != self._me.fingerprint:
            effect = "the schedules of this process are sent once it leads"
            actions.append(
                WriteLog(
                    "warning",
                    "schedules_differ",
                    {"scheduler": self._me.scheduler, "other": token.leader, "effect": effect},
                )
            )
        return actions

    # ---- what is due ------------------------------------------------------------------------------------------------

    def turn(self, now: int, monotonic: float, is_blocked: bool) -> list[Action]:
        """Return what is due."""
        actions = self._clock_steps.check(now, monotonic)
        if self.leader is not None:
            return actions + self.leader.turn(now, monotonic, is_blocked)
        if is_blocked and self._unconfirmed_since is not None:
            self._unconfirmed_since = monotonic
        if self._unconfirmed_since is not None and monotonic - self._unconfirmed_since >= LEAVE_AFTER:
            self._unconfirmed_since = monotonic
            actions.append(LeaveConnection("the broker has confirmed nothing for 5 s"))
        if self._is_subscribed and monotonic >= self._ask_at:
            self._ask_at = monotonic + ASK_EVERY
            actions.append(self._ask(is_blocked))
        return actions

    def _ask(self, is_blocked: bool) -> Action:
        """Ask who leads; if there is neither an answer nor a delivery for long, another connection may help."""
        self._unanswered = 0 if is_blocked else self._unanswered + 1
        if self._unanswered > MOST_UNANSWERED:
            return LeaveConnection(
                f"no scheduler leads, and this one has received no token for {ASK_EVERY * MOST_UNANSWERED:g} s"
            )
        return AskLeader(self._known_token)

    def seconds_left(self, now: int, monotonic: float) -> float:
        """Return the seconds until something may be due."""
        if self.leader is not None:
            return self.leader.seconds_left(now, monotonic)
        return max(0.0, self._ask_at - monotonic) if self._is_subscribed else ASK_EVERY

    def stop(self) -> None:
        """Send no further tick; the token is released once `has_settled`."""
        if self.leader is not None:
            self.leader.stop()

    @property
    def has_settled(self) -> bool:
        """Whether the token holds everything."""
        return self.leader is None or self.leader.has_settled
