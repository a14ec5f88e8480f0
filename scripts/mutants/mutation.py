"""
Changes a piece of code that a pattern finds in a named class, function or constant, wherever in the package that is.

A pattern is Python. A single capital letter in it matches any expression, and in the replacement it is what it matched
in the code; a letter that is used twice has to match the same expression. Names of files, layout and comments are
free to change, and so are the names of variables that a pattern has letters for.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

LETTER = re.compile("[A-Z]")
IGNORED = ("ctx", "type_comment", "kind")
Letters = dict[str, ast.AST]


class DoesNotApply(Exception):
    """A mutation does not fit the code: its place or its pattern was not found, or more than once."""


@dataclass(frozen=True)
class Mutation:
    """
    One change: in `place`, such as `Lane.on_lost`, what matches `pattern` becomes `replacement`.

    If both are single expressions, an expression is replaced, else one or more statements that follow each other.
    """

    place: str
    pattern: str
    replacement: str


@dataclass(frozen=True)
class Mutant:
    """One way to break the package, and the tests that must notice."""

    name: str
    tests: tuple[str, ...]
    mutations: tuple[Mutation, ...]


def apply(mutant: Mutant, package: Path) -> dict[Path, str]:
    """Return the new text of each file that a mutant changes; raises DoesNotApply unless each pattern matches once."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))}
    names = [mutation.place.rpartition(".")[2] for mutation in mutant.mutations]
    trees = {path: ast.parse(text) for path, text in texts.items() if any(name in text for name in names)}
    changed = set()
    for mutation in mutant.mutations:
        found = [(path, node) for path, tree in trees.items() for name, node in _named(tree) if name == mutation.place]
        if len(found) != 1:
            raise DoesNotApply(f"{mutation.place} is defined in {len(found)} places, not in one")
        path, node = found[0]
        _change(node, mutation)
        changed.add(path)
    return {path: ast.unparse(ast.fix_missing_locations(trees[path])) for path in changed}


def _named(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Yield the classes, functions and constants of a module, each with its qualified name."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield prefix + name, child
                yield from _named(child, f"{prefix}{name}.")
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield prefix + name, ast.Module([child], [])
            case _:
                yield from _named(child, prefix)


def _change(place: ast.AST, mutation: Mutation) -> None:
    pattern, replacement = (ast.parse(dedent(text)).body for text in (mutation.pattern, mutation.replacement))
    match pattern, replacement:
        case [ast.Expr(value=old)], [ast.Expr(value=new)]:
            spots = list(_expressions(place, old))
            new_nodes: list[ast.AST] = [new]
        case _:
            spots = list(_statements(place, pattern))
            new_nodes = [*replacement]
    if len(spots) != 1:
        raise DoesNotApply(f"{mutation.pattern!r} matches {len(spots)} times in {mutation.place}, not once")
    parent, field, first, length, letters = spots[0]
    filled = [_Filled(letters).visit(copy.deepcopy(one)) for one in new_nodes]
    if length:
        getattr(parent, field)[first : first + length] = filled
    else:
        setattr(parent, field, filled[0])


Spot = tuple[ast.AST, str, int, int, Letters]
"""A parent, its field, and the first index and the length in that field, which is 0 if the field is not a list."""


def _expressions(place: ast.AST, pattern: ast.AST) -> Iterator[Spot]:
    for parent in ast.walk(place):
        for field, value in ast.iter_fields(parent):
            for index, one in enumerate(value if isinstance(value, list) else [value]):
                letters: Letters = {}
                if isinstance(one, ast.expr) and _matches(pattern, one, letters):
                    yield parent, field, index, int(isinstance(value, list)), letters


def _statements(place: ast.AST, pattern: list[ast.stmt]) -> Iterator[Spot]:
    for parent in ast.walk(place):
        for field, value in ast.iter_fields(parent):
            if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                for index in range(len(value) - len(pattern) + 1):
                    letters: Letters = {}
                    if _matches(pattern, value[index : index + len(pattern)], letters):
                        yield parent, field, index, len(pattern), letters


def _matches(pattern: object, code: object, letters: Letters) -> bool:
    """Return whether code matches; add what each letter matches."""
    match pattern, code:
        case ast.Name(id=name), ast.expr() if LETTER.fullmatch(name):
            return _matches(letters.setdefault(name, code), code, {})
        case ast.AST(), ast.AST():
            return type(pattern) is type(code) and all(
                _matches(value, getattr(code, field), letters)
                for field, value in ast.iter_fields(pattern)
                if field not in IGNORED
            )
        case list(), list():
            return len(pattern) == len(code) and all(
                _matches(one, other, letters) for one, other in zip(pattern, code, strict=True)
            )
        case _:
            return type(pattern) is type(code) and pattern == code


class _Filled(ast.NodeTransformer):
    """Replaces letters by what they matched."""

    def __init__(self, letters: Letters) -> None:
        self._letters = letters

    def visit_Name(self, node: ast.Name) -> ast.AST:
        found = copy.deepcopy(self._letters.get(node.id, node))
        if hasattr(found, "ctx"):
            found.ctx = node.ctx
        return found
