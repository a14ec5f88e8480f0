"""
The options that the commands for dead letters share, and which letters they choose.

Decides that what changes queues needs a choice, and that `--all` is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from amqpworker.cli.option_times import seconds_of
from amqpworker.cli.shared import APP_VARIABLE, Place, app_option
from amqpworker.client.letter_queues import letter_queues
from amqpworker.errors import ConfigError, InvalidArguments
from amqpworker.model.letter_selection import Selection

if TYPE_CHECKING:
    from amqpworker.app import App

AppChoice = Annotated[str | None, app_option("The app that has the queues and the URL.")]
Ids = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Letters by their ids, or by sha256:… without one.")
]
LetterId = Annotated[str, typer.Argument(metavar="ID", help="The letter's id, or sha256:… if it has none.")]
Queues = Annotated[
    list[str] | None,
    typer.Option("-q", "--queue", metavar="QUEUE", help="Only letters of this work queue; repeatable."),
]
Groups = Annotated[
    list[str] | None,
    typer.Option("--group", metavar="FINGERPRINT", help="Only letters of this group, as `list` shows it; repeatable."),
]
TaskNames = Annotated[
    list[str] | None, typer.Option("--task", metavar="TASK", help="Only letters of this task; repeatable.")
]
Reasons = Annotated[
    list[str] | None, typer.Option("--reason", metavar="REASON", help="Only letters with this reason; repeatable.")
]
OlderThan = Annotated[
    str | None, typer.Option("--older-than", metavar="AGE", help="Only letters that died this long ago, such as 30d.")
]
All = Annotated[bool, typer.Option("--all", help="All letters of the app's queues, or of those of -q.")]
Parked = Annotated[
    bool, typer.Option("--parked", help="Parked messages (no queue when they were due) instead of dead letters.")
]
AllCopies = Annotated[bool, typer.Option("--all-copies", help="All letters that have one of the ids.")]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The letters that a command line chooses."""

    ids: Sequence[str] | None = None
    queues: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    reasons: Sequence[str] | None = None
    older_than: str | None = None
    everything: bool = False
    parked: bool = False

    @property
    def selection(self) -> Selection:
        """What a letter must have; raises InvalidArguments if an age is not valid."""
        return Selection(
            names=frozenset(self.ids or ()),
            groups=frozenset(self.groups or ()),
            tasks=frozenset(self.tasks or ()),
            reasons=frozenset(self.reasons or ()),
            died_before=None if self.older_than is None else _ago(self.older_than, "--older-than"),
        )

    def check(self) -> None:
        """Raise ConfigError if nothing is chosen, or all and less."""
        if not (self.ids or self.queues or self._has_conditions or self.everything):
            raise ConfigError("Choose letters: by ID, --group, --task, --queue, --reason or --older-than, or --all.")
        self.check_all()

    def check_all(self) -> None:
        """Raise ConfigError if all letters are chosen, and less."""
        if self.everything and (self.ids or self._has_conditions):
            raise ConfigError("--all does not go together with IDs or conditions: leave out one of them.")

    @property
    def _has_conditions(self) -> bool:
        return bool(self.groups or self.tasks or self.reasons or self.older_than is not None)

    def queues_of(self, app: App) -> list[str]:
        """Return the queues to read."""
        return letter_queues(app.plan, self.queues or (), self.parked)


def app_with_letters(place: Place, choice: Choice) -> App:
    """
    Return the app whose letters are meant, or one for the broker that is named if queues are named.

    Raises ConfigError if neither an app nor queues are named.
    """
    if place.app is None and not (choice.queues or choice.parked):
        if place.has_given_way:
            raise ConfigError(
                f"Name queues with -q: with --url or --namespace the app of {APP_VARIABLE}, which has queues, is ignored."
            )
        raise ConfigError("Name an app (MODULE:APP), or queues with -q.")
    return place.open()


def _ago(text: str, option: str) -> datetime:
    """Return when it was this long ago; raises InvalidArguments if that is not a time."""
    try:
        return datetime.now(UTC) - timedelta(seconds=seconds_of(text, option))
    except OverflowError:
        raise InvalidArguments(f"{option} {text!r:.40}: that is before the year 1.") from None
