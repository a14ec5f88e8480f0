"""Plain English: what people read (code, tests, pages, help) is free of habits of speech that readers stumbled over."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from amqpworker.cli.main import program
from tests.docs import PAGES, ROOT

# What is not written, and what is written instead.
BANNED = {
    r"(?<!\bthere\s)\b(?:is|are|was|were|be) no (?!longer\b|more\b)\w": "is not an X, has no X",
    r"\bwhere there (?:is|are|was|were)\b": "if there is",
    r"(?:\bonly|,) where (?:no|none|not|nothing)\b": "if",
    r"\b(?:tells?|telling|told)\b": "reports, returns, shows, names",
    r"\b(?:says?|said|saying)\b": "reports, states, shows, means",
    r"\b(?:comes?|came|coming) (?:\w+ )?again\b": "is redelivered",
    r"\bg(?:ive|ives|ave|iven|iving) (?:\w+ ){0,2}back\b": "requeue, return",
    r"\b(?:go|goes|went|gone|going) on\b": "continue, happen",
    r"\bat the (?:most|least)\b": "at most, at least",
    r"\b(?:once|twice|\w+ times) in an? (?:second|minute|hour|day|run)\b": "once per second",
    r"\b(?:after|about|below|above|beyond|by|for|from|in|of|than|with) so (?:many|long|much)\b": "N, this long",
    r"\b(?:some|any|every|no)body(?:'s)?\b|\bwho(?:so)?m?ever\b": "user, caller, process, all users, no one",
    r"\bslips?\b": "typo, mistake",
    r"\bmend(?:s|ed|ing)?\b": "fix, repair",
    r"\blook(?:s|ed|ing)? (?:\w+ )?at\b": "check, inspect, see",
    r"\ba right\b|\bthe right to\b|\brights\b": "permission",
    r"\b(?:stands?(?!-)|stood|standing)\b": "is, means, is listed",
    r"\bbears? (?:it|this|that)\b": "be idempotent, tolerate",
    r"\bwithout a word\b": "without a response",
    r"\b(?:leash|intake|triage|bereft|bury|buried|farewell|mourning|nudge[sd]?)\b": "a term of the field",
}
RULES = {re.compile(pattern.replace(" ", r"\s+"), re.IGNORECASE): instead for pattern, instead in BANNED.items()}

# Lines, as they are in a page or after the comment sign, that break a rule for a reason.
ALLOWED: dict[str, str] = {}

# `python -m tests.unit.test_words PART` lists what breaks a rule in one part.
PACKAGE = ROOT / "amqpworker"
PARTS = sorted(path.name for path in PACKAGE.iterdir() if path.name not in {"__pycache__", "py.typed"})
PARTS += ["deploy", "help", "tests"]
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
SCRIPTS = [ROOT / ".ci/run", *sorted((ROOT / "scripts").glob("*.sh"))]
TEXTS = [*PAGES, ROOT / "Makefile", ROOT / "bench/README.md", ROOT / "pyproject.toml", *SCRIPTS]


def sentences(text: str) -> str:
    """Return a page without the names in it: what is between backticks is code."""
    return re.sub(r"`[^`\n]+`", "``", text)


def comments_of(source: str) -> Iterator[tuple[int, str]]:
    """Yield the comments of a module, each with its line; comments that follow on are one text."""
    began, lines, last = 0, [], -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        if token.start[0] != last + 1:
            yield began, "\n".join(lines)
            began, lines = token.start[0], []
        lines.append(token.string.lstrip("# "))
        last = token.start[0]
    yield began, "\n".join(lines)


def strings_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the strings in a piece of code, each with its line."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(str(one.value) if isinstance(one, ast.Constant) else "x" for one in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


def texts_of(source: str) -> Iterator[tuple[int, str]]:
    """Yield the comments, docstrings and sentences of a module, each with its line."""
    yield from comments_of(source)
    yield from strings_of(ast.parse(source))


def texts_of_tests(source: str) -> Iterator[tuple[int, str]]:
    """Yield the comments, docstrings, messages of assertions and names of a test module; its other strings are data."""
    yield from comments_of(source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Assert) and node.msg is not None:
            yield from strings_of(node.msg)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield node.lineno, node.name.replace("_", " ")
        if isinstance(node, ast.ClassDef):
            yield node.lineno, "class " + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", node.name)
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node):
            yield from strings_of(node.body[0])


def modules_in(folder: str) -> list[Path]:
    return [path for path in sorted((ROOT / folder).rglob("*.py")) if ".venv" not in path.parts]


def habits(name: str, text: str, line: int = 1) -> list[str]:
    """Return what breaks a rule in a text, with the place and what to write instead."""
    text = sentences(text)
    if " " not in text.strip():
        return []  # a name
    found = []
    lines = text.split("\n")
    for rule, instead in RULES.items():
        for match in rule.finditer(text):
            number = text.count("\n", 0, match.start())
            if lines[number].strip() not in ALLOWED:
                shown = " ".join(match.group().split())
                found.append(f"{name}:{line + number}: {shown!r}: write {instead}: {lines[number].strip()}")
    return found


def in_module(path: Path, texts: Callable[[str], Iterable[tuple[int, str]]] = texts_of) -> list[str]:
    name = str(path.relative_to(ROOT))
    return [one for line, text in texts(path.read_text()) for one in habits(name, text, line)]


def helps(command: Any, name: str = "amqpworker") -> Iterator[tuple[str, str]]:
    """Yield the texts of a command's help, those of its commands included."""
    for text in (command.help, command.short_help, command.epilog):
        yield name, text or ""
    for parameter in command.params:
        yield f"{name} {parameter.name}", getattr(parameter, "help", None) or ""
    for below, sub in getattr(command, "commands", {}).items():
        yield from helps(sub, f"{name} {below}")


@pytest.mark.parametrize("page", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_is_in_plain_english(page: Path) -> None:
    assert habits(str(page.relative_to(ROOT)), page.read_text()) == []


def of_part(part: str) -> list[str]:
    """Return what breaks a rule in a part of the package, in the help, in the files of `deploy` or in the tests."""
    if part == "help":
        return [one for name, text in helps(typer.main.get_command(program)) for one in habits(name, text)]
    if part == "deploy":
        paths = [path for path in sorted((ROOT / part).rglob("*")) if path.is_file()]
        return [one for path in paths for one in habits(str(path.relative_to(ROOT)), path.read_text())]
    if part == "tests":
        return [one for path in modules_in(part) for one in in_module(path, texts_of_tests)]
    place = PACKAGE / part
    return [one for path in ([place] if place.is_file() else sorted(place.rglob("*.py"))) for one in in_module(path)]


def test_the_package_its_help_its_tests_and_what_is_deployed_are_in_plain_english() -> None:
    assert [one for part in PARTS for one in of_part(part)] == []


@pytest.mark.parametrize("folder", ["examples", "bench", "scripts"])
def test_what_surrounds_the_package_is_in_plain_english(folder: str) -> None:
    assert [one for path in modules_in(folder) for one in in_module(path)] == []


def test_what_is_allowed_or_left_out_is_still_there() -> None:
    folders = ("amqpworker", "tests", "examples", "bench", "scripts")
    every = "\n".join(path.read_text() for path in [*TEXTS, *(one for name in folders for one in modules_in(name))])
    lines = {line.strip().lstrip("# ") for line in every.splitlines()}
    assert [line for line in ALLOWED if line not in lines] == []


@pytest.mark.parametrize(
    "text",
    [
        "what is no frame at all",
        "a task that tells why",
        "the message comes\nagain",
        "messages are given back to it",
        "once in a second",
        "Whoever may write there",
        "as many as it says",
        "`queue` stands for it",
        "users with few rights",
        "after so many tasks",
    ],
)
def test_a_habit_is_found(text: str) -> None:
    assert len(habits("text", text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "There is no field 'colour'.",
        "it is no longer declared",
        "find where it is, as `told` is defined",
        "understand the standard library: right now, at most 4",
        "told",
    ],
)
def test_plain_english_is_left_alone(text: str) -> None:
    assert habits("text", text) == []


def test_comments_strings_and_docstrings_are_read_and_names_are_not() -> None:
    source = (
        '"""It says so."""\n# it comes\n# again\ntold = tells("told")\nraise Error(f"{told} is no {told} at all")\n'
    )
    found = [one for line, text in texts_of(source) for one in habits("module", text, line)]
    assert [one.split(": ")[0] for one in sorted(found)] == ["module:1", "module:2", "module:5"]


def test_names_comments_docstrings_and_messages_of_tests_are_read_and_their_data_is_not() -> None:
    source = '''"""It says so."""
class Nobody: ...
def test_what_is_told() -> None:
    """Give one\nback."""
    # it comes
    # again
    assert send("it goes on"), f"it is no {x}"
def told_by_nobody() -> None: ...
'''
    found = [one for line, text in texts_of_tests(source) for one in habits("module", text, line)]
    assert [one.split(": ")[0] for one in sorted(found)] == [f"module:{line}" for line in (1, 2, 3, 4, 6, 8)]


if __name__ == "__main__":
    sys.stdout.writelines(f"{one}\n" for part in sys.argv[1:] or PARTS for one in of_part(part))
