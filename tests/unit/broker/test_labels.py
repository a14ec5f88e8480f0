"""What processes and subscriptions are called at the broker."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from amqpworker.broker.labels import MAX_LABEL_BYTES, ConsumerTags, connection_name, process_name, program


@pytest.mark.parametrize(
    ("module", "argument", "called"),
    [
        (None, "/srv/shop/send.py", "send.py"),
        (None, "/usr/bin/gunicorn", "gunicorn"),
        (None, "-c", "python"),
        (None, "", "python"),
        ("shop.__main__", "/srv/shop/__main__.py", "shop"),
        ("shop.tools.send", "/srv/shop/tools/send.py", "shop.tools.send"),
    ],
)
def test_a_program_is_called_as_it_was_started(
    monkeypatch: pytest.MonkeyPatch, module: str | None, argument: str, called: str
) -> None:
    spec = None if module is None else SimpleNamespace(name=module)
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__spec__=spec))  # type: ignore[misc]
    monkeypatch.setattr(sys, "argv", [argument])
    assert program() == called


def test_a_name_fits_into_a_short_string_and_keeps_what_distinguishes_processes() -> None:
    name = connection_name("ä" * 300, "consumer")
    assert len(name.encode()) <= MAX_LABEL_BYTES
    assert name.endswith(f"ä consumer {process_name()}")


def test_no_consumer_tag_comes_twice_even_where_long_names_are_cut() -> None:
    tags = ConsumerTags()
    queues = ["q" * 254 + "1", "q" * 254 + "2", "ö" * 127, "emails", "emails"]
    made = [tags.make(queue) for queue in queues]
    assert len(set(made)) == len(made)
    assert all(len(tag.encode()) <= MAX_LABEL_BYTES for tag in made)
    assert made[-2:] == [f"{process_name()} emails", f"{process_name()} emails 2"]
