"""`amqpworker tasks`: what it lists, and which changes between two releases it calls safe."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, AliasChoices, Field, TypeAdapter

from amqpworker import App
from amqpworker.cli.task_changes import changes_between, widens
from amqpworker.cli.task_descriptions import TaskDescription, bare, descriptions_of
from amqpworker.signature.schema import json_schema_of
from tests.cli import Ended, run_here

SHOP = """
from amqpworker import App
app = App("amqp://guest:hidden@127.0.0.1:1/")
nothing = App()
other = App()

class NotFound(Exception): ...

@other.task(name="shop.sum", track=True, dedupe=True, result_ttl=90, throws=(NotFound, LookupError))
def sum_up(day: str) -> int: ...

@other.task(name="shop.tidy", result_ttl=0.5)
def tidy() -> int: ...

@app.task(name="shop.welcome", queue="emails", aliases=["welcome"])
def welcome(user_id: int, lang: str = "en") -> str: ...

@app.task(name="shop.report")
def report() -> None: ...
"""


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], Ended]:
    (tmp_path / "taskshop.py").write_text(SHOP)
    monkeypatch.delenv("AMQPWORKER_APP", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "taskshop", raising=False)
    return lambda line: run_here(capsys, *line.split())


def described(function: Any, name: str = "shop.task", **options: Any) -> TaskDescription:
    app = App()
    app.task(name=name, **options)(function)
    (one,) = descriptions_of(app.tasks)
    return one


def found(old: Any, new: Any, **options: Any) -> list[tuple[str, bool]]:
    """Return the changes between two functions as one task, the options being those of the new one."""
    return [(change.kind, change.safe) for change in changes_between([described(old)], [described(new, **options)])]


# ---- the command ----------------------------------------------------------------------------------------------------


def test_tasks_are_listed_with_their_names_queues_and_parameters(cli: Callable[[str], Ended]) -> None:
    ended = cli("tasks --app taskshop:app")
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[2].split() == ["shop.report", "default", "1"]
    assert lines[3].split() == ["shop.welcome", "emails", "1", "user_id", "[lang]"]
    assert lines[4].split() == ["also", "welcome"]
    assert cli("tasks --app taskshop:nothing").out == "The app has no tasks.\n"


def test_options_of_tasks_are_listed_if_a_task_has_some(cli: Callable[[str], Ended]) -> None:
    head, _, *rows = cli("tasks --app taskshop:other").out.splitlines()
    assert head.split() == ["task", "queue", "version", "parameters", "options"]
    assert " ".join(rows).split() == [
        *["shop.sum", "default", "1", "day", "track", "dedupe", "result_ttl=90"],
        *["throws=taskshop.NotFound", "throws=LookupError"],
        *["shop.tidy", "default", "1", "result_ttl=0.5"],
    ]
    summed, tidied = cli("tasks --app taskshop:other --json").json
    options = ("result_ttl", "track", "dedupe", "throws")
    assert [summed[name] for name in options] == [90.0, True, True, ["taskshop.NotFound", "LookupError"]]
    assert [tidied[name] for name in options] == [0.5, False, False, []]


def test_json_is_an_array_of_objects_which_diff_reads(cli: Callable[[str], Ended], tmp_path: Path) -> None:
    ended = cli("tasks --app taskshop:app --json")
    assert [task["name"] for task in ended.json] == ["shop.report", "shop.welcome"]
    assert ended.json[1] == {
        "name": "shop.welcome",
        "aliases": ["welcome"],
        "queue": "emails",
        "version": 1,
        "upgrade": False,
        "parameters": [
            {"name": "user_id", "required": True, "aliases": [], "schema": {"type": "integer"}},
            {"name": "lang", "required": False, "aliases": [], "schema": {"type": "string"}},
        ],
        "result": {"type": "string"},
        "result_ttl": None,
        "track": False,
        "dedupe": False,
        "throws": [],
    }
    (tmp_path / "deployed.json").write_text(ended.out)
    same = cli("tasks --app taskshop:app --diff deployed.json")
    assert (same.code, same.out) == (0, "The deploy is safe: no task has changed.\n")
    assert cli("tasks --app taskshop:app --diff deployed.json --json").json == []


def test_a_deploy_that_is_not_safe_is_exit_code_1_and_lists_what_to_do(
    cli: Callable[[str], Ended], tmp_path: Path
) -> None:
    deployed = cli("tasks --app taskshop:app --json").json
    deployed[1]["parameters"].pop(0)
    deployed[0]["name"] = "shop.old_report"
    (tmp_path / "deployed.json").write_text(json.dumps(deployed))
    ended = cli("tasks --app taskshop:app --diff deployed.json")
    assert ended.code == 1
    first, second, third, last = ended.out.splitlines()
    assert first.startswith("UNSAFE: task 'shop.old_report' is gone: its messages wait ten minutes")
    assert second.startswith("UNSAFE: task 'shop.welcome' requires the parameter 'user_id'")
    assert third.startswith("safe: task 'shop.report' is new")
    assert last == "The deploy is not safe: 2 of 3 changes can leave dead letters."
    as_json = cli("tasks --app taskshop:app --diff deployed.json --json")
    assert as_json.code == 1
    assert [(one["kind"], one["task"], one["safe"]) for one in as_json.json] == [
        ("task-removed", "shop.old_report", False),
        ("parameter-required", "shop.welcome", False),
        ("task-added", "shop.report", True),
    ]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "No such file"),
        ("", "is not what `amqpworker tasks --json` prints"),
        ("{}", "the file: Input should be a valid (array|list)"),
        ('[{"queue": "q"}]', "0.name: Field required"),
        ('[{"name": "a", "queue": "q", "version": "x"}]', "0.version"),
        ("\0\xff", "is not what"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_and_exit_code_2(
    cli: Callable[[str], Ended], tmp_path: Path, content: str | None, text: str
) -> None:
    if content is not None:
        (tmp_path / "deployed.json").write_text(content)
    ended = cli("tasks --app taskshop:app --diff deployed.json")
    assert (ended.code, ended.out) == (2, "")
    assert re.search(text, ended.complaint())


def test_without_an_app_it_names_the_option_and_the_variable(cli: Callable[[str], Ended]) -> None:
    ended = cli("tasks")
    assert (ended.code, ended.complaint()) == (
        2,
        "Name the app that has the tasks: --app MODULE:APP, or AMQPWORKER_APP.",
    )


# ---- what is safe ---------------------------------------------------------------------------------------------------


def plain(a: int, b: str = "x") -> None: ...
def more(a: int, b: str = "x", c: int = 1) -> None: ...
def requiring(a: int, c: int, b: str = "x") -> None: ...
def less(a: int) -> None: ...
def wider(a: int | None, b: str = "x") -> None: ...
def real(a: float, b: str = "x") -> None: ...
def other(a: str, b: str = "x") -> None: ...
def stricter(a: int, b: str) -> None: ...
def looser(a: int = 1, b: str = "x") -> None: ...
def renamed(n: Annotated[int, Field(validation_alias=AliasChoices("n", "a"))], b: str = "x") -> None: ...
def unaliased(n: int, b: str = "x") -> None: ...
def returning(a: int, b: str = "x") -> int:
    return a


def upgrade(_version: int, arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments


SAFE, UNSAFE = True, False


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (plain, []),
        (more, [("parameter-added", SAFE)]),
        (requiring, [("parameter-required", UNSAFE)]),
        (less, [("parameter-removed", UNSAFE)]),
        (stricter, [("parameter-required", UNSAFE)]),
        (looser, [("parameter-optional", UNSAFE)]),
        (wider, [("parameter-type", UNSAFE)]),
        (other, [("parameter-type", UNSAFE)]),
        (renamed, [("parameter-renamed", SAFE)]),
        (returning, [("result-changed", SAFE)]),
    ],
)
def test_a_change_of_parameters_is_safe_only_if_old_and_new_code_read_what_either_sends(
    new: Any, expected: Any
) -> None:
    assert found(plain, new) == expected


@pytest.mark.parametrize("new", [more, requiring, less, stricter, looser, wider, other])
def test_a_higher_version_with_an_upgrade_is_safe_whatever_changes(new: Any) -> None:
    assert found(plain, new, version=2, upgrade=upgrade) == [("version-raised", SAFE)]


@pytest.mark.parametrize(
    ("new", "safe"), [(more, SAFE), (looser, SAFE), (wider, SAFE), (real, SAFE), (requiring, UNSAFE), (other, UNSAFE)]
)
def test_a_higher_version_without_an_upgrade_is_safe_if_older_messages_fit(new: Any, safe: bool) -> None:
    changes = found(plain, new, version=2)
    assert ("version-raised", SAFE) in changes
    assert all(safe for _, safe in changes) is safe


def test_a_lower_version_is_not_safe() -> None:
    old, new = described(plain, version=3), described(plain, version=2)
    assert [(change.kind, change.safe) for change in changes_between([old], [new])] == [("version-lowered", UNSAFE)]


def test_another_name_is_safe_if_the_old_one_is_kept_as_an_alias() -> None:
    old = [described(plain, "shop.a")]
    assert [one.safe for one in changes_between(old, [described(plain, "shop.b")])] == [UNSAFE, SAFE]
    (kept,) = changes_between(old, [described(plain, "shop.b", aliases=["shop.a"])])
    assert (kept.kind, kept.safe) == ("task-added", SAFE)
    assert "before it was 'shop.a'" in kept.text


def test_an_alias_that_is_gone_is_reported() -> None:
    old, new = described(plain, aliases=["shop.oldest"]), described(plain)
    assert [(one.kind, one.safe) for one in changes_between([old], [new])] == [("alias-removed", UNSAFE)]


def test_an_upgrade_that_is_gone_is_not_safe_whatever_the_new_version_is() -> None:
    old = described(plain, version=2, upgrade=upgrade)
    for version in (2, 3):
        changes = changes_between([old], [described(plain, version=version)])
        assert ("upgrade-removed", UNSAFE) in [(one.kind, one.safe) for one in changes]


def test_an_older_name_of_a_parameter_that_is_gone_is_not_safe() -> None:
    old, new = described(renamed), described(unaliased)
    (gone,) = changes_between([old], [new])
    assert (gone.kind, gone.safe) == ("parameter-alias-removed", UNSAFE)
    assert "the older name 'a' of the parameter 'n'" in gone.text
    assert changes_between([old], [described(renamed)]) == []
    (upgraded,) = changes_between([old], [described(unaliased, version=2, upgrade=upgrade)])
    assert (upgraded.kind, upgraded.safe) == ("version-raised", SAFE)


def test_another_queue_is_safe_if_new_workers_consume_the_old_one() -> None:
    old, new, neighbour = described(plain), described(plain, queue="other"), described(plain, "shop.neighbour")
    (moved,) = changes_between([old], [new])
    assert (moved.kind, moved.safe) == ("queue-changed", UNSAFE)
    assert "-q default until it is empty" in moved.text
    assert [one.safe for one in changes_between([old, neighbour], [new, neighbour])] == [SAFE]
    assert [one.safe for one in changes_between([old], [new], {"default"})] == [SAFE], "app.queue('default')"


def test_the_queue_that_the_advice_names_makes_the_deploy_safe(cli: Callable[[str], Ended], tmp_path: Path) -> None:
    (tmp_path / "deployed.json").write_text(cli("tasks --app taskshop:app --json").out)
    moved = SHOP.replace('queue="emails"', 'queue="mail"')
    for added, code in (("", 1), ("app.queue('emails')\n", 0)):
        (tmp_path / "taskshop.py").write_text(moved + added)
        sys.modules.pop("taskshop")
        assert cli("tasks --app taskshop:app --diff deployed.json").code == code


# ---- schemas --------------------------------------------------------------------------------------------------------


@dataclass
class Item:
    """An item."""

    sku: str
    title: str = "none"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (int, int, True),
        (int, float, True),
        (float, int, False),
        (int, int | None, True),
        (int | None, int, False),
        (int | None, int | str | None, True),
        (int, Any, True),
        (Any, int, False),
        (list[int], list[float], False),
        (list[Item], list[Item] | None, True),
        (Item, Item | int, True),
        (Literal["a"], Literal["a", "b"], False),
    ],
)
def test_a_type_is_wider_if_it_certainly_takes_each_value_of_the_other(old: Any, new: Any, expected: bool) -> None:
    assert widens(*(bare(json_schema_of("p", hint)) for hint in (old, new))) is expected


def test_a_definition_that_differs_is_not_wider() -> None:
    old = bare(json_schema_of("p", list[Item]))
    new = json.loads(json.dumps(old).replace('"sku"', '"code"'))
    assert not widens(old, new)


def test_texts_for_people_are_not_compared_and_fields_that_are_named_like_them_are() -> None:
    schema = bare(TypeAdapter(Item).json_schema())
    assert schema["properties"] == {"sku": {"type": "string"}, "title": {"type": "string"}}
    assert "title" not in schema
    assert "description" not in schema


def test_a_hint_without_a_json_schema_is_described_by_its_text() -> None:
    class Odd:
        @classmethod
        def __get_pydantic_core_schema__(cls, *_: Any) -> Any:
            from pydantic_core import core_schema

            return core_schema.no_info_plain_validator_function(int)

    def take(a: Annotated[Any, AfterValidator(int)], b: Decimal, c: Odd) -> None: ...

    one = described(take)
    first, second, third = (parameter.json_schema for parameter in one.parameters)
    assert first == {}
    assert second
    assert "Odd" in third["hint"]
    assert not changes_between([one], [described(take)])
