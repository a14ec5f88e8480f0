"""
The ticks of a leader: which are sent now, tried again, skipped, or missed.

Decides what the broker's confirm, its refusal and the answer of the result store mean for a schedule. A schedule whose tick is
refused holds up no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from amqpworker.lifecycle import backoff
from amqpworker.model.headers import time_text
from amqpworker.scheduler.agenda import Agenda, Entry, Stage
from amqpworker.scheduler.scheduler_actions import Action, AskStore, SendTick, WriteLog
from amqpworker.scheduler.token import Token
from amqpworker.schedules.definition import Schedule
from amqpworker.schedules.gap import DueTicks, due_ticks

FIRST_PAUSE = 0.5
MAX_PAUSE = 30.0
STORE_PAUSE = 5.0
# Milliseconds: ticks of an older token are neither sent nor counted, since counting those of thousands of schedules takes long.
LONGEST_GAP = 366 * 24 * 3600 * 1000
# At least this many milliseconds are between two times of a schedule.
SHORTEST_DISTANCE = 1000
MOST_NAMED = 20
# With this many in flight no further ticks are sent: after a long gap millions may be due, and the leader must act meanwhile.
MOST_IN_FLIGHT = 10_000


class Ticks:
    """
    The schedules of a leader, and which of their ticks are sent; times are milliseconds, `monotonic` is seconds.

    All ticks up to `until` are sent, except those of schedules that lag or are `paused`, each since its own time. A task of a
    schedule with `overlap="skip"` that has no result after `result_ttl` milliseconds counts as ended.
    """

    def __init__(self, schedules: Mapping[str, Schedule], token: Token | None, now: int, result_ttl: int) -> None:
        self.is_blank = token is None
        """Whether no token was known: what was before is not known."""
        self.until = now if token is None else token.until
        self.number = 0
        """How many tokens were put so far."""
        self.paused: dict[str, int] = {}
        self.running: dict[str, int] = {}
        """The ticks whose task has not ended as far as is known, of schedules with `overlap="skip"`."""
        self.in_flight = 0
        """How many ticks wait for their confirm."""
        self._result_ttl = result_ttl
        self._agenda = Agenda(schedules, self.until)
        self._refused: dict[str, str] = {}
        self._missed: dict[str, int] = {}
        if token is not None:
            self._take_over(token, now)
        for entry in self._agenda.entries.values():
            entry.position = max(entry.position, now - LONGEST_GAP)
            self._wait(entry)

    def _take_over(self, token: Token, now: int) -> None:
        entries = self._agenda.entries
        self.number = token.number
        latest = max(token.until, now)
        self.paused = {name: min(since, latest) for name, since in token.paused.items() if name in entries}
        for name, time in token.lagging.items():
            if name in entries:
                entries[name].position = min(time, token.until)
        for name, time in token.running.items():
            if name in entries and entries[name].schedule.overlap == "skip":
                self.running[name] = min(time, latest)

    # ---- what a token holds -----------------------------------------------------------------------------------------

    @property
    def entries(self) -> Mapping[str, Entry]:
        """All schedules, by name."""
        return self._agenda.entries

    def lagging(self) -> dict[str, int]:
        """Return the schedules with ticks that are due and not confirmed, each with the time up to which they are."""
        return {name: entry.position for name, entry in self._agenda.lagging.items()}

    def seconds_left(self, now: int, monotonic: float) -> float | None:
        """Return the seconds until something is due, None if nothing is before the broker has confirmed a tick."""
        return None if self._is_full else self._agenda.seconds_left(now, monotonic)

    # ---- what is due ------------------------------------------------------------------------------------------------

    @property
    def _is_full(self) -> bool:
        return self.in_flight >= MOST_IN_FLIGHT

    def send_due(self, now: int, monotonic: float) -> list[Action]:
        """Return what is due now; from then on everything up to `until` is sent, or lagging."""
        actions: list[Action] = []
        asked: list[tuple[str, int]] = []
        while not self._is_full and (entry := self._agenda.pop_due(now, monotonic)) is not None:
            self._begin(entry, (now, monotonic), actions, asked)
        self.until = max(self.until, self._agenda.done_until(now))
        if asked:
            actions.append(AskStore(tuple(asked)))
        return actions

    def _begin(
        self, entry: Entry, clock: tuple[int, float], actions: list[Action], asked: list[tuple[str, int]]
    ) -> None:
        """Send the ticks of an entry that are due, or find out whether they may be sent."""
        now, monotonic = clock
        due = _due(entry, min(now, self.paused.get(entry.name, now)))
        if due.missed:
            self._count_missed(entry, due)
        ticks: Sequence[int] = [tick for tick in due.ticks if tick not in entry.confirmed]
        entry.goal = due.position
        if entry.schedule.overlap == "skip" and ticks:
            # One by one: whether the second is sent depends on the task of the first.
            ticks = ticks[:1]
            entry.goal = ticks[0]
            running = self.running.get(entry.name)
            if running is not None and now < running + self._result_ttl:
                if entry.asking is None:
                    asked.append((entry.name, running))
                entry.asking = ticks[0]
                self._agenda.keep_busy(entry, monotonic + STORE_PAUSE)
                return
        entry.asking = None
        if ticks:
            self._send(entry, ticks, actions)
        else:
            self._complete(entry)

    def _count_missed(self, entry: Entry, due: DueTicks) -> None:
        """Count the ticks that are not sent; those of a schedule that is refused are found again at each try."""
        last = entry.last_missed
        missed = due.missed - (0 if last is None else entry.schedule.timing.count(_missed_since(entry), last))
        if missed > 0:
            entry.missed += missed
            entry.last_missed = due.last_missed
            self._missed[entry.name] = self._missed.get(entry.name, 0) + missed

    def _send(self, entry: Entry, ticks: Sequence[int], actions: list[Action]) -> None:
        self._agenda.keep_busy(entry)
        entry.sending.update(ticks)
        self.in_flight += len(ticks)
        actions += [SendTick(entry.name, tick) for tick in ticks]

    def on_tick_ended(self, schedule: str, nominal: int, error: str | None, monotonic: float) -> None:
        """A tick was confirmed, or was refused for this reason."""
        entry = self._agenda.entries[schedule]
        entry.sending.discard(nominal)
        self.in_flight -= 1
        if error is None:
            entry.confirmed.add(nominal)
            entry.last = nominal if entry.last is None else max(entry.last, nominal)
            if entry.schedule.overlap == "skip":
                self.running[schedule] = nominal
        else:
            entry.failed.add(nominal)
            self._refused[schedule] = error
        if entry.sending:
            return
        if not entry.failed:
            self._complete(entry)
            return
        entry.next = min(entry.failed)
        entry.position = max(entry.position, entry.next - 1)
        entry.confirmed = {tick for tick in entry.confirmed if tick > entry.position}
        entry.failed.clear()
        entry.failures += 1
        if schedule in self.paused:
            self._agenda.remove(entry, Stage.PAUSED)
        else:
            self._agenda.retry(entry, monotonic + backoff(FIRST_PAUSE, MAX_PAUSE, entry.failures))

    def _complete(self, entry: Entry) -> None:
        """Have an entry wait for its next time: what was due is dealt with."""
        entry.position = max(entry.position, entry.goal)
        entry.confirmed.clear()
        entry.failures = 0
        entry.asking = None
        self._wait(entry)

    def _wait(self, entry: Entry) -> None:
        """
        Have an entry wait for its next time.

        It lags if that is not after `until`: other ticks before it were sent first, or the clock was set back.
        """
        self._agenda.put(entry)
        paused = self.paused.get(entry.name)
        if paused is not None and (entry.next is None or entry.next > paused):
            self._agenda.remove(entry, Stage.PAUSED)
        elif entry.next is not None and entry.next <= self.until:
            self._agenda.lagging[entry.name] = entry

    # ---- overlap ----------------------------------------------------------------------------------------------------

    def ticks_to_ask(self) -> tuple[tuple[str, int], ...]:
        """Return the ticks whose tasks had not ended when that was asked last."""
        return tuple((name, tick) for name, tick in self.running.items() if self._agenda.entries[name].asking is None)

    def on_store_answered(
        self, ended: Mapping[tuple[str, int], bool | None], monotonic: float
    ) -> tuple[list[Action], bool]:
        """
        Return what follows from whether the tasks of ticks have ended, None if the store did not answer.

        The second value is whether anything has changed that a token holds.
        """
        actions: list[Action] = []
        changed = False
        for (name, tick), has_ended in ended.items():
            if self.running.get(name) != tick:
                continue
            if has_ended:
                del self.running[name]
                changed = True
            entry = self._agenda.entries[name]
            if (asking := entry.asking) is None:
                continue
            entry.asking = None
            changed = True
            if has_ended:
                self._send(entry, (asking,), actions)
            elif has_ended is None:
                self._agenda.retry(entry, monotonic + STORE_PAUSE)
            else:
                entry.skipped += 1
                self._complete(entry)
        return actions, changed

    # ---- commands ---------------------------------------------------------------------------------------------------

    def pause(self, name: str, at: int, monotonic: float) -> list[Action]:
        """
        Send nothing for a schedule after this moment, and return what was due before.

        What was refused is not tried again.
        """
        actions: list[Action] = []
        if name in self.paused:
            return actions
        self.paused[name] = at
        entry = self._agenda.entries[name]
        if entry.stage is Stage.WAITING and entry.next is not None and entry.next <= at:
            asked: list[tuple[str, int]] = []
            self._begin(entry, (at, monotonic), actions, asked)
            actions += [AskStore(tuple(asked))] if asked else []
        else:
            self._stop_waiting(entry)
        return actions

    def _stop_waiting(self, entry: Entry) -> None:
        """Have a schedule wait for nothing, unless it waits for an answer: it stops after that."""
        if entry.stage is not Stage.BUSY:
            self._agenda.remove(entry, Stage.PAUSED)

    def resume(self, name: str, at: int) -> None:
        """Send the ticks of a schedule after this moment again."""
        since = self.paused.pop(name, None)
        if since is None:
            return
        entry = self._agenda.entries[name]
        # The clock of the command's sender may be behind: what is before the token's time is not made up.
        entry.position = max(entry.position, at, since, self.until)
        if entry.stage is Stage.PAUSED:
            self._wait(entry)

    def adopt(self, token: Token) -> None:
        """
        Take over a token with a later time: another scheduler has led meanwhile, or a user has written it.

        An older one shows what was sent and paused before all tokens were lost, such as with a deleted queue.
        What is paused remains so: a command that only this scheduler knows is not in the token.
        """
        was_blank, self.is_blank = self.is_blank, False
        self.until = max(self.until, token.until)
        self.number = max(self.number, token.number)
        for name, entry in self._agenda.entries.items():
            sent = min(token.lagging.get(name, token.until), token.until)
            if entry.stage is Stage.WAITING:
                entry.position = sent if was_blank else max(entry.position, sent)
                self._wait(entry)
            elif entry.stage is Stage.BUSY:
                entry.goal = max(entry.goal, sent)
            if entry.schedule.overlap == "skip" and name in token.running:
                self.running[name] = max(min(token.running[name], token.until), self.running.get(name, 0))
        for name in set(token.paused).intersection(self._agenda.entries).difference(self.paused):
            self.paused[name] = min(token.paused[name], self.until)
            self._stop_waiting(self._agenda.entries[name])

    # ---- what is logged ---------------------------------------------------------------------------------------------

    def log_lines(self) -> list[Action]:
        """Return the log lines about what has happened since the last call: one for many schedules."""
        lines: list[Action] = []
        if missed := self._missed:
            fields = {"missed": sum(missed.values()), "schedules": list(missed)[:MOST_NAMED]}
            effect = "each schedule's misfire decides what is sent: the last tick, none, or all up to a bound"
            lines.append(WriteLog("warning", "ticks_missed", {**fields, "effect": effect}))
        # Of the failures in a row only some are logged: the first, second, fourth, eighth and so on.
        logged = {name: text for name, text in self._refused.items() if _is_power_of_two(self.entries[name].failures)}
        if logged:
            first = min(self.entries[name].position for name in logged) + 1
            fields = {"schedules": list(logged)[:MOST_NAMED], "since": time_text(first), "count": len(logged)}
            lines.append(
                WriteLog(
                    "warning",
                    "ticks_refused",
                    {**fields, "reason": next(iter(logged.values())), "effect": "tried again"},
                )
            )
        self._missed, self._refused = {}, {}
        return lines


def _due(entry: Entry, now: int) -> DueTicks:
    """Return what is due of an entry: almost always a single tick, whose time is known already."""
    tick = entry.next
    if entry.stage is Stage.WAITING and tick is not None and 0 <= now - tick < SHORTEST_DISTANCE:
        return DueTicks((tick,), 0, None, now)
    if entry.stage is Stage.FAILED and tick is not None and entry.position < tick <= now:
        # It was refused, and is sent again however long that takes: `misfire` decides about later ones only.
        later = due_ticks(entry.schedule, tick, now)
        return DueTicks((tick, *later.ticks), later.missed, later.last_missed, later.position)
    return due_ticks(entry.schedule, entry.position, now)


def _missed_since(entry: Entry) -> int:
    """Return after which time ticks of an entry may be missed."""
    return entry.position if entry.stage is not Stage.FAILED else max(entry.position, entry.next or 0)


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0
