"""`amqpworker dead edit` without a broker: which version the edited arguments have."""

from __future__ import annotations

from amqpworker.cli.dead_edit_command import with_version
from amqpworker.model.message import Headers, Properties, Publication


def headers_of(version: int, **before: int) -> Headers:
    old: Headers = {name.replace("_", "-"): value for name, value in before.items()}
    properties = Properties(headers=old, type="shop.task")
    edited = with_version(Publication("amqpworker.due", "work", properties, b"{}"), version)
    assert edited.properties.type == "shop.task"
    assert properties.headers == {name.replace("_", "-"): value for name, value in before.items()}, "as they were"
    return edited.properties.headers or {}


def test_edited_arguments_have_the_version_of_the_task_that_they_fit() -> None:
    assert headers_of(3, aw_version=2, tenant=5) == {"aw-version": 3, "tenant": 5}
    assert headers_of(2) == {"aw-version": 2}
    assert headers_of(1, aw_version=2) == {}
