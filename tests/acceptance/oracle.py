"""
Judges a scene: waits until nothing moves any more, drains the dead letters, and balances the ledger.

    confirmed is finished, dead or parked     nothing is lost
    started was attempted                     nothing is invented, and nothing runs that was refused
    runs of an attempt                        one, and one more for each reason that the guarantees allow
    seconds of a send                         its timeout at most, and some grace for a busy machine

An attempt may run again for each of its runs in a process that was killed, for each time it was sent, for each run of
the attempt before (each gives a copy of its own), and where a fault of the broker or of the network fell into the life
of its message.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amqpworker import ConfigError
from tests.acceptance.scene import CALL_TIMEOUT, MOST_ATTEMPTS, PYTHON, QUEUE, Scene
from tests.acceptance.service.ledger import Line
from tests.support import Broker, raw_channel, wait_until

STILL = 2.0  # nothing may be seen for this long: the broker's figures are up to a second old
SLACK = 1.0
GRACE = 5.0
DEAD = f"{QUEUE}.dead"
PARKED = "amqpworker.parked"
UNSETTLED = ("messages_unacknowledged", "messages_dlx")
ENTERED = (
    "try",
    "call",
    "confirmed",
    "unknown",
    "refused",
    "answered",
    "unanswered",
    "start",
    "end",
    "killed",
    "fault",
    "process",
)
KINDS = ("messages_ready", *UNSETTLED)

told: list[str] = []
"""One line for each balance, for the end of the test run."""


@dataclass
class DeadLetter:
    """A message that was drained."""

    id: str
    attempt: int
    reason: str


@dataclass
class Balance:
    """What the ledger contains, and every way in which it is wrong."""

    tries: dict[str, list[Line]] = field(default_factory=lambda: defaultdict(list))
    calls: set[str] = field(default_factory=set)
    outcomes: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    runs: dict[tuple[str, int], list[Line]] = field(default_factory=lambda: defaultdict(list))
    ends: dict[str, list[Line]] = field(default_factory=lambda: defaultdict(list))
    dead: dict[str, list[DeadLetter]] = field(default_factory=lambda: defaultdict(list))
    parked: dict[str, list[DeadLetter]] = field(default_factory=lambda: defaultdict(list))
    killed: set[int] = field(default_factory=set)
    faults: list[float] = field(default_factory=list)
    packages: set[str] = field(default_factory=set)
    send_timeout: float = 0.0
    slow: list[Line] = field(default_factory=list)

    @property
    def confirmed(self) -> set[str]:
        return {one for one, outcomes in self.outcomes.items() if "confirmed" in outcomes}

    @property
    def started(self) -> set[str]:
        return {one for one, _ in self.runs}

    def lost(self) -> set[str]:
        """Return what was confirmed, or answered, and is nowhere."""
        answered = {one for one in self.calls if "answered" in self.outcomes[one]}
        return ((self.confirmed - self.dead.keys() - self.parked.keys()) | answered) - self.ends.keys()

    def invented(self) -> set[str]:
        """Return what ran although it was not sent, or although each attempt reported that it had not left."""
        refused = {one for one in self.tries if self.outcomes[one] == {"refused"} and not self.open_tries(one)}
        return (self.started - self.tries.keys() - self.calls) | (self.started & refused)

    def open_tries(self, one: str) -> bool:
        """Return whether the sender died before it knew what became of a message."""
        return not self.outcomes[one]

    def doubles(self) -> int:
        """Count the runs beyond the first of each attempt."""
        return sum(len(runs) - 1 for runs in self.runs.values())

    def unexplained(self) -> list[str]:
        """Return the attempts that ran more often than the guarantees allow."""
        wrong = []
        for (one, attempt), runs in self.runs.items():
            messages = (
                len(self.runs.get((one, attempt - 1), ())) if attempt > 1 else max(1, len(self.tries.get(one, ())))
            )
            allowed = messages + sum(run["pid"] in self.killed for run in runs)
            if len(runs) > allowed and not self.was_disturbed(one):
                wrong.append(f"{one} attempt {attempt}: {len(runs)} runs, {allowed} allowed")
        for one, letters in self.dead.items():
            if len(letters) > len(self.runs.get((one, letters[0].attempt), ())) and not self.was_disturbed(one):
                wrong.append(f"{one}: {len(letters)} dead letters")
        return wrong

    def was_disturbed(self, one: str) -> bool:
        """Return whether a fault fell into the life of a message."""
        times = [line["at"] for line in self.tries.get(one, ())]
        times += [run["at"] for attempt in range(1, MOST_ATTEMPTS + 1) for run in self.runs.get((one, attempt), ())]
        times += [end["at"] for end in self.ends.get(one, ())]
        return any(min(times) - SLACK <= fault <= max(times) + SLACK for fault in self.faults)

    def misnumbered(self) -> list[str]:
        """Return the messages whose attempts are not counted 1, 2, 3 … up to the most."""
        seen: dict[str, set[int]] = defaultdict(set)
        for one, attempt in self.runs:
            seen[one].add(attempt)
        return [
            f"{one}: attempts {sorted(attempts)}"
            for one, attempts in seen.items()
            if attempts != set(range(1, max(attempts) + 1)) or max(attempts) > MOST_ATTEMPTS
        ]

    def early(self) -> list[str]:
        """Return the messages that started before their time."""
        return [
            f"{one}: {runs[0]['at'] - line['at']:.3f} s after it was sent with a delay of {line['delay']} s"
            for (one, attempt), runs in self.runs.items()
            if attempt == 1
            for line in self.tries.get(one, ())[:1]
            if runs[0]["at"] < line["at"] + line["delay"]
        ]

    def misburied(self) -> list[str]:
        """Return dead letters that should not be dead, or that lack the reason."""
        task_of = {one: lines[0]["task"] for one, lines in self.tries.items()}
        return [
            f"{letter.id} ({task_of.get(letter.id)}): {letter.reason}, attempt {letter.attempt}"
            for letters in self.dead.values()
            for letter in letters
            if task_of.get(letter.id) != "doomed" or letter.reason != "failed" or letter.attempt != MOST_ATTEMPTS
        ]

    def __str__(self) -> str:
        again = sum(len(tries) > 1 for tries in self.tries.values())
        return (
            f"attempted {len(self.tries)}, confirmed {len(self.confirmed)}, sent again {again}, "
            f"ok {len(self.ends)}, dead {len(self.dead)}, parked {len(self.parked)}, lost {len(self.lost())}, "
            f"doubles {self.doubles()} (unexplained {len(self.unexplained())}), calls {len(self.calls)}, "
            f"killed {len(self.killed)}, faults {len(self.faults)}"
        )

    def check(self, name: str, may_be_lost: Iterable[str] = (), may_park: bool = False) -> None:
        """Fail with every way in which the balance is wrong; `may_be_lost` were in a queue that was deleted."""
        told.append(f"{name}: {self}")
        wrong: dict[str, Any] = {
            "lost": self.lost() - set(may_be_lost),
            "invented": self.invented(),
            "doubles that nothing explains": self.unexplained(),
            "attempts not counted right": self.misnumbered(),
            "started too early": self.early(),
            "dead letters that are wrong": self.misburied(),
            "sends that took too long": [
                f"{line['id']}: {line['seconds']:.1f} s, {line['event']}" for line in self.slow
            ],
            "parked": [] if may_park else list(self.parked),
            "not the installed package": strangers(self.packages),
        }
        found = {what: sorted(which)[:10] for what, which in wrong.items() if which}
        assert not found, f"{self}\n{found}"


def strangers(packages: Iterable[str]) -> list[str]:
    """Return the places that the package came from and that are not below the prefix of AMQPWORKER_PYTHON."""
    if "AMQPWORKER_PYTHON" not in os.environ:
        return []  # for work on these tests they are run from the checkout
    prefix = Path(PYTHON).parent.parent
    return [package for package in packages if not Path(package).is_relative_to(prefix)]


def balance(scene: Scene, timeout: float = 60.0) -> Balance:
    """Wait until nothing moves, drain, and balance."""
    return balances({"": scene}, timeout)[""]


def balances(scenes: Mapping[str, Scene], timeout: float = 60.0) -> dict[str, Balance]:
    """Wait until nothing moves in any of these scenes of one node, drain, and balance."""
    wait_for_quiet(list(scenes.values()), timeout)
    return {name: judged(scene) for name, scene in scenes.items()}


def judged(scene: Scene) -> Balance:
    """Balance a scene in which nothing moves."""
    result = Balance(send_timeout=scene.send_timeout)
    for line in scene.events(*ENTERED):
        enter(result, line)
    for queue, letters in ((DEAD, result.dead), (PARKED, result.parked)):
        for letter in drain(scene.broker, queue):
            letters[letter.id].append(letter)
    return result


def enter(result: Balance, line: Line) -> None:
    """Enter a line of the ledger into the balance."""
    match line["event"]:
        case "try":
            result.tries[line["id"]].append(line)
        case "call":
            result.calls.add(line["id"])
        case "confirmed" | "unknown" | "refused" | "answered" | "unanswered" as outcome:
            result.outcomes[line["id"]].add(outcome)
            bound = CALL_TIMEOUT if outcome.endswith("answered") else result.send_timeout
            if line.get("seconds", 0.0) > bound + GRACE:
                result.slow.append(line)
        case "start":
            result.runs[line["id"], line["attempt"]].append(line)
        case "end":
            result.ends[line["id"]].append(line)
        case "killed":
            result.killed.add(line["pid"])
        case "fault":
            result.faults.append(line["at"])
        case "process":
            result.packages.add(line["package"])


def wait_for_quiet(scenes: Sequence[Scene], timeout: float) -> None:
    """Wait until no message waits, is delayed, runs or is on its way between queues, for a while."""
    end = time.monotonic() + timeout
    quiet_since: float | None = None
    written = -1
    while quiet_since is None or time.monotonic() < quiet_since + STILL:
        began = time.monotonic()
        busy = moving([scene.broker for scene in scenes])
        size = sum(scene.ledger.path.stat().st_size for scene in scenes)
        quiet_since = (quiet_since or began) if not busy and size == written else None
        written = size
        assert began < end, f"Not quiet within {timeout:g} s: {busy}" + "".join(one.said("pool") for one in scenes)
        time.sleep(0.2)


def moving(brokers: Sequence[Broker]) -> dict[str, Counter[str]]:
    """Return the counts of every queue that holds messages which should continue by themselves."""
    found = {}
    vhosts = {broker.vhost for broker in brokers}
    for queue in listed(brokers[0]):
        kinds = KINDS if queue["name"] not in {DEAD, PARKED} else UNSETTLED
        counts = +Counter({kind: int(queue.get(kind) or 0) for kind in kinds})
        if counts and queue["vhost"] in vhosts:
            found[f"{queue['vhost']}/{queue['name']}"] = counts
    if not found:
        exact = {broker.vhost: broker.count(QUEUE) for broker in brokers}
        found = {f"{vhost}/{QUEUE}": Counter(messages_ready=ready) for vhost, ready in exact.items() if ready > 0}
    return found


def listed(broker: Broker) -> list[dict[str, Any]]:
    """Return all queues of a node. Its list can fail with a 500 while a queue is declared or deleted."""

    def attempt() -> list[dict[str, Any]] | None:
        try:
            found: list[dict[str, Any]] = broker.management.request("GET", "queues")
        except ConfigError as error:
            if "500" not in str(error):
                raise
            return None
        return found

    return wait_until(attempt, 10, "the list of queues") or []


def drain(broker: Broker, queue: str) -> list[DeadLetter]:
    """Take every dead letter out of a queue; none if there is no such queue."""
    letters: list[DeadLetter] = []
    if broker.count(queue) < 0:
        return letters
    with raw_channel(broker.url) as channel:
        while True:
            method, properties, _ = channel.basic_get(queue, auto_ack=True)
            if method is None:
                return letters
            headers = properties.headers or {}
            letters.append(
                DeadLetter(properties.message_id, int(headers.get("aw-attempt", 1)), str(headers.get("aw-dead-reason")))
            )
