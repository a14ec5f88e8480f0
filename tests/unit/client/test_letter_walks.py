"""Walks that read letters end in order, also if their caller is interrupted; without a broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import pytest

from amqpworker import App
from amqpworker.client import letter_walks
from amqpworker.client.letter_walks import LetterWalks
from amqpworker.model.letter_selection import EVERYTHING
from amqpworker.model.message import Delivery, Properties

LETTER = Delivery(1, False, "dead", "emails", Properties(), b"{}")


class Walker:
    """Yields one letter again and again, and records what ends when."""

    def __init__(self, events: list[str], end: str) -> None:
        self.events, self.end = events, end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.events.append(self.end)

    def __iter__(self) -> Iterator[Delivery]:
        while True:
            yield LETTER

    def walk(self, _: str) -> Walker:
        return Walker(self.events, "requeued")


def test_a_walk_that_is_interrupted_between_two_letters_is_over_before_its_connection_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []
    monkeypatch.setattr(letter_walks, "QueueWalker", lambda *_, **__: Walker(events, "closed"))
    app: Any = App()
    with pytest.raises(KeyboardInterrupt), LetterWalks("", app.settings, app.plan) as walks:
        for _ in walks.read("emails.dead", EVERYTHING):
            raise KeyboardInterrupt
    assert events == ["requeued", "closed"]
