"""A namespace in simulated time: a broker, schedulers, a result store, a user with commands; and what must hold."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pydantic_core import to_json

from amqpworker.model.headers import FIRST_SENT, time_text
from amqpworker.model.message import Message, Properties
from amqpworker.model.reply import decode_reply
from amqpworker.scheduler.scheduler_actions import SendTick, WriteLog
from amqpworker.schedules.definition import Misfire, Overlap, Schedule
from amqpworker.schedules.interval import Interval
from tests.unit.scheduler.simulated_broker import Broker, Timeline
from tests.unit.scheduler.simulated_scheduler import OnAnswer, OnConfirm, SimulatedScheduler

FOREVER = 10**15
STRICT = ("all", "quick")
"""Schedules of which no tick may be missed, however long a gap is."""


def schedule(
    name: str, every: float, misfire: Misfire = "once", overlap: Overlap = "allow", grace: float = 20
) -> Schedule:
    """Return a schedule with a time each `every` seconds."""
    message: Message[Any] = Message("task", "queue", b"{}", "1")
    return Schedule(name, message, Interval(int(every * 1000)), overlap=overlap, misfire=misfire, grace=grace)


COMMON = (
    schedule("all", 9, "all"),
    schedule("quick", 8.3, "all"),
    schedule("once", 7, "once"),
    schedule("none", 6, "skip"),
    schedule("single", 4, "once", "skip"),
)
VERSIONS = tuple(
    {each.name: each for each in (*COMMON, extra)} for extra in (schedule("old", 9, "all"), schedule("new", 8, "all"))
)


@dataclass
class UserView:
    """What a user may expect of one schedule."""

    pause_sent: int | None = None
    """The clock's time when the pause was sent that is in force."""
    is_replied: bool = False
    excused: list[tuple[int, int]] = field(default_factory=list)
    """Periods whose ticks need not be sent."""


class World:
    """What happens, and what must hold of it; a violation raises AssertionError at once."""

    def __init__(self, seed: int) -> None:
        self.time = Timeline(seed)
        self.broker = Broker(self.time)
        self.schedulers: list[SimulatedScheduler] = []
        self.offsets = [0]
        """How far any clock has ever been ahead."""
        self.refused: dict[str, str] = {}
        self.ever_refused: set[str] = set()
        self.store = "ended"
        self.published: dict[str, dict[int, int]] = {}
        """By schedule and nominal time: the sender's clock."""
        self.began: int | None = None
        self.users = {name: UserView() for version in VERSIONS for name in version}
        self._commands: dict[str, tuple[str, str, int]] = {}
        self._sent_in_a_term: dict[tuple[str, int, str], dict[int, None]] = {}

    # ---- what a scheduler does --------------------------------------------------------------------------------------

    def on_sending(self, scheduler: SimulatedScheduler, action: SendTick) -> None:
        """Check a tick that a scheduler has decided to send."""
        name, nominal = action.schedule, action.nominal
        sent = self._sent_in_a_term.setdefault((scheduler.label, scheduler.term, name), {})
        assert nominal in sent or nominal > max(sent, default=0), f"{name} is not sent in the order of its times"
        sent[nominal] = None
        assert nominal <= self.time.now + max(self.offsets), "a tick is sent before its time"
        user = self.users[name]
        if user.is_replied and user.pause_sent is not None:
            # The store may have been asked about a tick before: of a time after the pause, if the leader's clock is ahead.
            asked = max(self.offsets) if name == "single" else 0
            assert nominal <= user.pause_sent + asked, f"{name} is paused"

    def send_tick(self, action: SendTick, clock: int, on_confirm: OnConfirm) -> None:
        """Take a tick, or refuse it."""
        name, nominal = action.schedule, action.nominal
        how = self.refused.get(name, "")
        if how != "nack":
            self.published.setdefault(name, {}).setdefault(nominal, clock)
        if how != "no confirm":
            self.broker.confirm(lambda: on_confirm("nacked" if how else None))

    def on_put(self, body: bytes) -> None:
        """Check a token."""
        assert len(body) < 1000

    def ask_store(self, ticks: tuple[tuple[str, int], ...], on_answer: OnAnswer) -> None:
        """Answer soon, late, or never."""
        answer = {"ended": True, "running": False, "down": None}.get(self.store)
        if self.store != "hangs":
            delay = self.time.random.choice((1, 50, 3_000))
            self.time.after(delay, lambda: on_answer(dict.fromkeys(ticks, answer)))

    def on_log(self, scheduler: SimulatedScheduler, line: WriteLog) -> None:
        """Note since when ticks are sent, and what a leader does not know."""
        if line.event == "token_adopted":
            for key in [key for key in self._sent_in_a_term if key[0] == scheduler.label]:
                del self._sent_in_a_term[key]
        if line.event == "scheduler_leading":
            if self.began is None or not self.broker.held_a_token:
                self.began = scheduler.wall
            for name in set(self.users).difference(scheduler.schedules):
                self.forget_pause(name)

    def on_reply(self, reply_to: str, body: bytes) -> None:
        """Pass on a reply to a scheduler, or to the user."""
        label, _, term = reply_to.partition(" ")
        for scheduler in self.schedulers:
            if scheduler.label == label and scheduler.is_alive and scheduler.connection is not None:
                scheduler.connection.respond(partial(scheduler.on_leader_answered, int(term), body))
        if label not in self._commands:
            return
        reply = decode_reply(body)
        kind, name, sent = self._commands[label]
        user = self.users.get(name)
        if kind != "list" and reply.status == "done" and user is not None:
            assert json.loads(reply.value or b"")["paused"] == (kind == "pause")
            if kind == "pause" and user.pause_sent == sent:
                user.is_replied = True
            elif kind == "resume" and user.pause_sent is None:
                self._end_excuse(user)

    # ---- the user ---------------------------------------------------------------------------------------------------

    def command(self, kind: str, name: str) -> None:
        """Send a command."""
        now = self.time.now
        if (user := self.users.get(name)) is not None and kind == "pause":
            if user.pause_sent is None:
                user.pause_sent, user.is_replied = now, False
                user.excused.append((self._excused_since(name), FOREVER))
        elif user is not None and kind == "resume":
            user.pause_sent, user.is_replied = None, False
        number = f"user-{len(self._commands)}"
        self._commands[number] = kind, name, now
        headers: dict[str, Any] = {FIRST_SENT: time_text(now)}
        body = {} if kind == "list" else {"schedule": name}
        self.broker.put(Properties(type=kind, message_id=number, reply_to=number, headers=headers), to_json(body))

    def _excused_since(self, name: str) -> int:
        if name in self.ever_refused:  # a pause gives up what is refused
            return 0
        return self.time.now

    def _end_excuse(self, user: UserView) -> None:
        user.excused = [(since, self.time.now if end == FOREVER else end) for since, end in user.excused]

    def forget_pause(self, name: str) -> None:
        """Expect no more of a pause: the leader does not know of it, for a reason."""
        user = self.users[name]
        user.pause_sent, user.is_replied = None, False

    def excuse_all(self, until: int) -> None:
        """Expect no tick up to this time, nor that a pause lasts: the tokens were lost, or one was forged."""
        for name, user in self.users.items():
            user.excused.append((0, until))
            if user.pause_sent is not None:
                user.excused.append((0, FOREVER))
            self.forget_pause(name)

    def put_token(self, body: bytes) -> None:
        """Put a token that a user has written."""
        self.broker.put(Properties(type="token", message_id="by hand"), body)

    def silence(self) -> None:
        """Confirm nothing for now: each tick may have to be sent again."""
        self.broker.is_silent = True
        self.ever_refused.update(self.users)
        for user in self.users.values():
            if user.pause_sent is not None:
                user.excused.append((0, FOREVER))

    def refuse(self, name: str, how: str) -> None:
        """Refuse the ticks of a schedule from now on; with an empty text take them again."""
        self.refused[name] = how
        self.ever_refused.add(name)
        user = self.users[name]
        if user.pause_sent is not None:
            user.excused.append((0, FOREVER))

    # ---- at the end -------------------------------------------------------------------------------------------------

    @property
    def leaders(self) -> list[SimulatedScheduler]:
        """All that lead."""
        return [each for each in self.schedulers if each.leads]

    def check_end(self) -> None:
        """Check what must hold some time after the last fault."""
        assert len(self.leaders) == 1, f"{len(self.leaders)} lead"
        leader = self.leaders[0]
        ticks = leader.election.leader.ticks  # type: ignore[union-attr]
        for name in ("all", "quick", "once", "none", "single"):
            user = self.users[name]
            if user.pause_sent is not None and user.is_replied:
                assert name in ticks.paused, f"the pause of {name} is forgotten"
            if name not in ticks.paused:
                recent = [nominal for nominal in self.published.get(name, ()) if nominal > leader.wall - 20_000]
                assert recent, f"{name} is not sent any more"
        for name in STRICT:
            self._check_all_sent(name, leader.wall - 15_000)
        for name in ("once", "none"):
            self._check_misfire(name)
        lagging = ticks.lagging()
        assert all(leader.wall - position < 60_000 for position in lagging.values()), lagging

    def _is_excused(self, name: str, nominal: int) -> bool:
        behind, ahead = min(self.offsets), max(self.offsets)
        return any(since + behind <= nominal <= end + ahead for since, end in self.users[name].excused)

    def _missing(self, name: str, until: int) -> list[int]:
        assert self.began is not None
        timing, sent, found = VERSIONS[0][name].timing, self.published.get(name, {}), []
        nominal = timing.after(self.began)
        while nominal is not None and nominal <= until:
            if nominal not in sent and not self._is_excused(name, nominal):
                found.append(nominal)
            nominal = timing.after(nominal)
        return found

    def _check_all_sent(self, name: str, until: int) -> None:
        missing = self._missing(name, until)
        assert not missing, f"{name}: {len(missing)} missed, first {time_text(missing[0])}"

    def _check_misfire(self, name: str) -> None:
        """A tick that was not sent is in a gap longer than the grace: so the next one was sent that much later."""
        sent = self.published.get(name, {})
        if not sent or name in self.ever_refused:
            return
        grace = VERSIONS[0][name].grace * 1000
        missing = self._missing(name, max(sent))
        for nominal in missing:
            following = min(each for each in sent if each > nominal)
            before = max((one for one in sent if one < nominal), default=self.began or 0)
            first = VERSIONS[0][name].timing.after(before) or 0
            assert sent[following] - first > grace - 1000, f"{name} was not sent at {time_text(nominal)}"
