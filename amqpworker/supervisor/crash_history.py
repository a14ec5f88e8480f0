"""
Which messages were running in worker processes that have died: one of them may have crashed its process.

A process asks about each redelivered message, since the broker may have redelivered it before the supervisor noticed
the death. Decides the answers, and how long they wait for a process that still seems to be alive. It does no I/O.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from amqpworker.ipc.pipes import SuspectAnswer
from amqpworker.ipc.recorder import Recording

MAX_SUSPECTS = 10_000
MAX_QUERIES = 100_000
# The kernel closes the sockets of a process that dies some time before its parent can reap it.
DEATH_PATIENCE = 1.0
# A process that has lost its connection, and makes no progress either, is most likely about to be killed.
UNRESPONSIVE_AFTER = 5.0


@dataclass(frozen=True, slots=True)
class PendingQuery:
    """A process has asked about a message at this (monotonic) time."""

    serial: int
    key: str
    asked_at: float


class CrashHistory:
    """The suspects, of which the oldest are forgotten if there are too many, and the queries that wait for an answer."""

    def __init__(self) -> None:
        self._suspects: OrderedDict[str, None] = OrderedDict()
        self._queries: list[PendingQuery] = []

    def record_death(self, recording: Recording | None) -> None:
        """Remember what was running in a process that has ended; one that ends by itself has cleared its recording."""
        for run in () if recording is None else recording.running:
            self._suspects[run.key] = None
            self._suspects.move_to_end(run.key)
        while len(self._suspects) > MAX_SUSPECTS:
            self._suspects.popitem(last=False)

    def add_queries(self, serial: int, keys: Sequence[str], now: float) -> None:
        """Add the queries of a process; those above the limit get no answer, which the process handles by itself."""
        room = MAX_QUERIES - len(self._queries)
        self._queries += [PendingQuery(serial, key, now) for key in keys[:room]]

    @property
    def has_queries(self) -> bool:
        """Whether a query waits for its answer."""
        return bool(self._queries)

    def answers(
        self, recordings: Mapping[int, Recording | None], now: float, blocked: Collection[str] = ()
    ) -> list[tuple[int, SuspectAnswer]]:
        """
        Return what can be answered now, each answer with the serial number of the process that asked.

        `recordings` are those of the living processes, read after the dead were reaped. Messages in `blocked` have to wait.
        """
        holders: dict[str, list[int]] = {}
        for serial, recording in recordings.items():
            for run in () if recording is None else recording.running:
                holders.setdefault(run.key, []).append(serial)
        found: defaultdict[tuple[int, bool], list[str]] = defaultdict(list)
        waiting: list[PendingQuery] = []
        for query in self._queries:
            if query.serial not in recordings:
                continue  # the process that asked is gone
            others = [serial for serial in holders.get(query.key, ()) if serial != query.serial]
            if query.key in blocked:
                waiting.append(query)
            elif query.key in self._suspects:
                found[query.serial, True].append(query.key)
            elif others and now < query.asked_at + DEATH_PATIENCE:
                waiting.append(query)
            else:
                suspect = any(_is_unresponsive(recordings[serial], now) for serial in others)
                found[query.serial, suspect].append(query.key)
        self._queries = waiting
        return [(serial, SuspectAnswer(tuple(keys), suspect)) for (serial, suspect), keys in found.items()]


def _is_unresponsive(recording: Recording | None, now: float) -> bool:
    return recording is None or bool(recording.stalled_thread(now, UNRESPONSIVE_AFTER))
