"""
What a verb is about to do with dead letters: which ones it would act on, counted before anything changes.

Decides when a verb refuses. No letter is kept from others while a user thinks.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from amqpworker.cli.dead_listing import counted, show_groups
from amqpworker.client.letter_mover import LetterMover
from amqpworker.log.terminal import print_error, printable
from amqpworker.model.letter_groups import LetterGroups

if TYPE_CHECKING:
    from amqpworker.app import App
    from amqpworker.client.letter_mover import MakeCopy
    from amqpworker.client.letter_walks import LetterWalks
    from amqpworker.model.letter_selection import Selection


@dataclass(slots=True)
class VerbPlan:
    """The letters that were found, by queue and by name, and the names that no letter has."""

    by_queue: dict[str, int]
    by_name: dict[str, dict[str, int]]
    groups: dict[str, LetterGroups] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many letters were found."""
        return sum(self.by_queue.values())

    @property
    def missing(self) -> list[str]:
        """The names that no letter has."""
        return [name for name, places in self.by_name.items() if not places]

    @property
    def several(self) -> list[str]:
        """The names that several letters have."""
        return [name for name, places in self.by_name.items() if sum(places.values()) > 1]

    def rows(self, acted: bool = True) -> list[dict[str, Any]]:
        """Return the counts for JSON, all of them 0 if nothing was `acted` on."""
        by_name = {name: sum(places.values()) * acted for name, places in self.by_name.items()}
        return count_rows({queue: count * acted for queue, count in self.by_queue.items()}, by_name)


def count_rows(by_queue: Mapping[str, int], by_name: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return for JSON how many letters a verb acted on: by their names if it was given names, else by queue."""
    key, counts = ("name", by_name) if by_name else ("queue", by_queue)
    return [{key: one, "letters": count} for one, count in counts.items()]


def plan_of(walks: LetterWalks, queues: Sequence[str], selection: Selection, names: Sequence[str]) -> VerbPlan:
    """Return which letters are selected now."""
    plan = VerbPlan(dict.fromkeys(queues, 0), {name: {} for name in names})
    for queue in queues:
        groups = plan.groups[queue] = LetterGroups()
        for letter in walks.read(queue, selection):
            groups.add(letter)
            if names:
                places = plan.by_name[letter.name]
                places[queue] = places.get(queue, 0) + 1
        plan.by_queue[queue] = groups.count
    return plan


def show_plan(plan: VerbPlan) -> None:
    """Print what was found, by group."""
    for queue, groups in plan.groups.items():
        if groups.count:
            show_groups(queue, list(groups))


def refuse_several(plan: VerbPlan) -> None:
    """End the command if several letters have one name: it may not be all of them that are meant."""
    for name in plan.several:
        places = ", ".join(f"{count} in {printable(queue)}" for queue, count in plan.by_name[name].items())
        print_error(f"Several dead letters have the id {name!r}: {places}.")
    if plan.several:
        print_error("Nothing was done. With --all-copies all of them are meant.")
        raise typer.Exit(1)


def report_missing(plan: VerbPlan, queues: Sequence[str], parked: bool) -> bool:
    """Report the names that no letter has; return whether there are any."""
    for name in plan.missing:
        hint = group_hint(name) or ("" if parked else " Parked messages need --parked.")
        where = f"in queue {queues[0]!r}" if len(queues) == 1 else f"in {counted(len(queues), 'queue')}"
        print_error(f"No dead letter with the id {name!r} {where}.{hint}")
    return bool(plan.missing)


def group_hint(name: str) -> str:
    """Return what to add if a name looks like the fingerprint of a group, which `dead list` shows in place of ids."""
    is_fingerprint = re.fullmatch("[0-9a-f]{8}", name) is not None
    return (
        f" For the letters of a group use --group {name}; `dead list --group {name} --letters` has their ids."
        * is_fingerprint
    )


def walks_of(app: App) -> LetterWalks:
    """Return a connection that reads letters; if it has to wait for another command, that is printed."""
    from amqpworker.client.letter_walks import LetterWalks

    def report_busy(text: str) -> None:
        sys.stderr.write(printable(text) + "\n")

    return LetterWalks(app.url, app.settings, app.plan, report_busy)


def mover_of(
    app: App, make_copy: MakeCopy, rate: float | None = None, on_moved: Callable[[int], None] = lambda _: None
) -> LetterMover:
    """Return what moves letters over the connection of the app."""
    return LetterMover(lambda: app.producer.publisher.sends, app.settings.send_timeout, make_copy, rate, on_moved)
