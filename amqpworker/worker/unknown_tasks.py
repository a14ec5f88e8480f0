"""
Tasks that a worker does not have, and the most likely cause.

Decides the texts. If a known task has the same function name in another module, it is most often the same file imported by
another name; otherwise the module that defines the task is not imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MAX_NAMES = 3


def similar_names(name: str, known: Iterable[str]) -> list[str]:
    """Return known tasks with the same function name in another module; first those of which one name ends with the other."""
    function = name.rpartition(".")[2]
    alike = [one for one in known if one.rpartition(".")[2] == function and one != name]
    return sorted(alike, key=lambda one: (not (one.endswith(f".{name}") or name.endswith(f".{one}")), one))[:MAX_NAMES]


def advice(name: str, known: Iterable[str]) -> str:
    """Return what to do about a task that this worker does not have."""
    found = similar_names(name, known)
    if not found:
        return "is its module imported, or named in App(modules=[…])?"
    names = " or ".join(map(repr, found))
    return f"it has {names}: import the module by one name everywhere, or give the task name=… or aliases=[{name!r}]"


def no_tasks(target: str, modules: Sequence[str]) -> str:
    """Return the text for an app without tasks, and how to give it some."""
    looked = f", nor have the modules of App(modules={list(modules)!r})" if modules else ""
    module = target.partition(":")[0]
    example = f"{module.rpartition('.')[0] or module}.tasks"
    return (
        f"{target!r} has no tasks{looked}: each message would be dead-lettered. Name the modules that define tasks in "
        f"App(modules=[{example!r}, …]), or import them in {module}."
    )
