"""
Which messages had started in worker processes that have died: they may be what took the process down.

Pure. A process asks about a message that was delivered before, since the broker may have given it on before anybody
noticed the death. Decides what is answered, and how long a process that seems to live is waited for.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from amqpworker.ipc.recorder import Recording
from amqpworker.ipc.report import SuspectAnswer
from amqpworker.supervisor.stall_check import stalled

__all__ = ["Suspects"]

MOST_SUSPECTS = 10_000
MOST_QUESTIONS = 100_000
# The kernel closes the sockets of a process that dies some time before it tells its parent.
DEATH_PATIENCE = 1.0
# A process that has lost its connection, and does not move either, is most likely on its way to be killed.
MOVED_LATELY = 5.0


@dataclass(frozen=True, slots=True)
class Question:
    """A process has asked about a message at this (monotonic) time."""

    serial: int
    key: str
    asked: float


class Suspects:
    """The messages that are suspected, the oldest forgotten where there are too many, and the questions about messages."""

    def __init__(self) -> None:
        self._keys: OrderedDict[str, None] = OrderedDict()
        self._questions: list[Question] = []

    def note_death(self, recording: Recording | None) -> None:
        """Note what was running in a process that has ended; what ends by itself has told that nothing runs."""
        for one in () if recording is None else recording.running:
            self._keys[one.key] = None
            self._keys.move_to_end(one.key)
        while len(self._keys) > MOST_SUSPECTS:
            self._keys.popitem(last=False)

    def ask(self, serial: int, keys: Sequence[str], now: float) -> None:
        """Note questions; a process that asks for too much is not answered, and does without."""
        room = MOST_QUESTIONS - len(self._questions)
        self._questions += [Question(serial, key, now) for key in keys[:room]]

    @property
    def asked(self) -> bool:
        """Whether a question waits for its answer."""
        return bool(self._questions)

    def verdicts(
        self, recordings: Mapping[int, Recording | None], now: float, awaited: Collection[str] = ()
    ) -> list[tuple[int, SuspectAnswer]]:
        """
        Return what can be answered now, and the serial number of who asked.

        `recordings` are those of the living, read after the dead were noted. Messages in `awaited` have to wait.
        """
        holders: dict[str, list[int]] = {}
        for serial, recording in recordings.items():
            for one in () if recording is None else recording.running:
                holders.setdefault(one.key, []).append(serial)
        found: defaultdict[tuple[int, bool], list[str]] = defaultdict(list)
        waiting: list[Question] = []
        for question in self._questions:
            if question.serial not in recordings:
                continue  # whoever asked is gone
            others = [one for one in holders.get(question.key, ()) if one != question.serial]
            if question.key in awaited:
                waiting.append(question)
            elif question.key in self._keys:
                found[question.serial, True].append(question.key)
            elif others and now < question.asked + DEATH_PATIENCE:
                waiting.append(question)
            else:
                suspect = any(hangs(recordings[one], now) for one in others)
                found[question.serial, suspect].append(question.key)
        self._questions = waiting
        return [(serial, SuspectAnswer(tuple(keys), suspect)) for (serial, suspect), keys in found.items()]


def hangs(recording: Recording | None, now: float) -> bool:
    """Tell whether a process has not moved lately."""
    return recording is None or bool(stalled(recording, now, MOVED_LATELY))
