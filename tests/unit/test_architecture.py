"""The shape of the package, held by reading its source: sizes, who imports whom, and who may do what."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import amqpworker

ROOT = Path(amqpworker.__file__).parent
TESTS = Path(__file__).parents[1]

# From the bottom up: a module imports from its own layer and from those above it in this list, never from below.
# A directory includes all its modules; a module of the root that is not named here fails the test.
LAYERS: dict[str, set[str]] = {
    "words": {"errors", "settings", "text", "model"},
    "process": {"lifecycle"},
    "log": {"log", "hooks"},
    "ipc": {"ipc"},
    "decisions": {"signature", "policies", "routing", "schedules"},
    "broker": {"broker"},
    "results": {"results"},
    "client": {"client"},
    "app": {"app", "task"},
    "worker": {"worker"},
    "scheduler": {"scheduler"},
    "supervisor": {"supervisor"},
    "testing": {"testing"},
    "cli": {"cli"},
    "contrib": {"contrib"},
}
ORDER = list(LAYERS)

# what a decision may not touch; a clock is passed in as a number
IMPURE = {
    "asyncio",
    "concurrent",
    "multiprocessing",
    "selectors",
    "signal",
    "socket",
    "sqlite3",
    "subprocess",
    "threading",
}
PURE = {"errors", "settings", "text", "model", *LAYERS["decisions"]}

# what a supervisor needs of ours, and what those who share it with worker processes need
SUPERVISOR_NEEDS = {"errors", "lifecycle", "log", "ipc", "supervisor"}
IPC_NEEDS = {"errors", "lifecycle", "log", "ipc"}
MOST_ROOT_FILES = 9

# who may wait by sleeping, and why
SLEEPERS = {
    "broker/queue_walk.py": "asks the broker until no other program reads a queue",
    "client/letter_mover.py": "keeps a rate",
    "results/sqlite_file.py": "a locked database file",
    "client/result_reader.py": "a store that does not report changes",
    "cli/status_command.py": "refreshes the status once per second",
    "worker/limits/limits.py": "gives way to the thread that is about to raise an exception in this one",
    "worker/limits/interruption.py": "lets the other threads move before it looks where one is",
    "testing/processes.py": "reads a process's environment during its exec",
    "testing/waiting.py": "waits for a condition",
}

ACKNOWLEDGE = {"worker/settle.py", "scheduler/performer.py"}
MANY_PARAMETERS = {"options", "schedule", "task"}  # keyword options are the interface there, as in `App.__init__`


def modules() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imported(path: Path) -> Iterator[str]:
    """Yield the full names that a module imports, inside functions too, but not for the type checker only."""
    waiting: list[ast.AST] = [tree(path)]
    while waiting:
        found = waiting.pop()
        if isinstance(found, ast.If) and "TYPE_CHECKING" in ast.unparse(found.test):
            waiting.extend(found.orelse)
            continue
        if isinstance(found, ast.Import):
            yield from (alias.name for alias in found.names)
        elif isinstance(found, ast.ImportFrom):
            assert not found.level, f"{named(path)}:{found.lineno}: imports are absolute"
            yield from (f"{found.module}.{alias.name}" for alias in found.names)
        waiting.extend(ast.iter_child_nodes(found))


def layer_of(module: str) -> str | None:
    """Return the layer of `amqpworker.x.y`; `None` for the package itself and for `python -m amqpworker`."""
    parts = module.split(".")
    if len(parts) == 1 or parts[1] in {"__main__", "__version__"}:
        return None
    if len(parts) == 2 and not (ROOT / parts[1]).is_dir() and not (ROOT / f"{parts[1]}.py").is_file():
        return "worker"  # a name that the package itself gives: it gathers everything up to `worker.context`
    for layer, members in LAYERS.items():
        if parts[1] in members:
            return layer
    raise AssertionError(f"{module} belongs to no layer: add it to LAYERS and to docs/structure.md")


def dotted(path: Path) -> str:
    return ".".join(("amqpworker", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def test_every_module_imports_only_from_its_own_layer_and_those_before_it() -> None:
    wrong = []
    for path in modules():
        own = layer_of(dotted(path))
        for name in imported(path):
            theirs = layer_of(name) if own and name.startswith("amqpworker.") else None
            if own and theirs and ORDER.index(theirs) > ORDER.index(own):
                wrong.append(f"{named(path)} ({own}) imports {name} ({theirs})")
    assert not wrong, "\n".join(wrong)


def test_no_two_modules_import_each_other_when_they_are_loaded() -> None:
    names = {dotted(path) for path in modules()}
    needs = {}
    for path in modules():
        found = {
            full if (full := f"{it.module}.{alias.name}") in names else str(it.module)
            for it in tree(path).body
            if isinstance(it, ast.ImportFrom)
            for alias in it.names
        }
        needs[dotted(path)] = (found & names) - {dotted(path)}
    while ready := {name for name, needed in needs.items() if not needed}:
        needs = {name: needed - ready for name, needed in needs.items() if name not in ready}
    assert not needs, f"a circle somewhere among {sorted(needs)}"


def test_only_the_broker_package_imports_pika_or_aio_pika() -> None:
    wrong = [
        f"{named(path)} imports {name}"
        for path in modules()
        for name in imported(path)
        if name.split(".")[0] in {"pika", "aio_pika"} and not named(path).startswith("broker/")
    ]
    assert not wrong, "\n".join(wrong)


# which files import one of the libraries
PIKA_FILES = {"pika_connection", "pika_channel", "pika_parameters", "pika_errors", "io_thread"}
AIO_FILES = {"aio_connection", "aio_channel", "aio_errors"}


def test_what_publishes_and_declares_knows_neither_library() -> None:
    core = (
        "publish_core lane publish_channel pending_publish publish_errors quarantine publish_session declarer liveness"
    )
    program = (
        f"import sys, importlib\n[importlib.import_module('amqpworker.broker.' + one) for one in {core.split()}]\n"
    )
    program += "print(sorted({'pika', 'aio_pika', 'aiormq'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_each_file_of_the_broker_knows_at_most_one_library() -> None:
    ours = {"pika": PIKA_FILES, "aio_pika": AIO_FILES, "aiormq": AIO_FILES, "pamqp": AIO_FILES}
    wrong = [
        f"{named(path)} imports {name}"
        for path in modules()
        for name in imported(path)
        for library, files in ours.items()
        if name.split(".")[0] == library and path.stem not in files
    ]
    assert not wrong, "\n".join(wrong)


def test_words_and_decisions_know_no_thread_socket_or_process() -> None:
    wrong = [
        f"{named(path)} imports {name}"
        for path in modules()
        for name in imported(path)
        if path.relative_to(ROOT).with_suffix("").parts[0] in PURE and name.split(".")[0] in IMPURE
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("folder", "needs"), [("supervisor", SUPERVISOR_NEEDS), ("ipc", IPC_NEEDS)])
def test_a_supervisor_and_what_it_shares_with_workers_need_no_app_broker_or_pydantic(
    folder: str, needs: set[str]
) -> None:
    allowed = needs | {"__version__"}
    wrong = [
        f"{named(path)} imports {name}"
        for path in modules()
        for name in imported(path)
        if named(path).startswith(f"{folder}/")
        and (name.startswith("pydantic") or (name.startswith("amqpworker.") and name.split(".")[1] not in allowed))
    ]
    assert not wrong, "\n".join(wrong)


def test_each_file_name_is_used_once() -> None:
    stems = Counter(path.stem for path in modules() if not path.stem.startswith("__"))
    assert [stem for stem, count in stems.items() if count > 1] == []


def test_the_root_has_few_files() -> None:
    assert len(list(ROOT.glob("*.py"))) <= MOST_ROOT_FILES


def test_only_settle_acknowledges_tasks_and_only_the_performer_tokens() -> None:
    acts = re.compile(r"\bbasic_(ack|nack|reject)\b|\.(ack|nack|reject|acknowledge|requeue)\(")
    wrong = [
        f"{named(path)}:{number}: {line.strip()}"
        for path in modules()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if acts.search(line) and not named(path).startswith("broker/") and named(path) not in ACKNOWLEDGE
    ]
    assert not wrong, "\n".join(wrong)


def test_only_modules_with_a_listed_reason_sleep() -> None:
    found = {
        named(path)
        for path in modules()
        if re.search(r"\btime\.sleep\(|from time import .*sleep|\bEvent\(\)\.wait\(", path.read_text())
    }
    assert found <= SLEEPERS.keys()


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {named(path): len(path.read_text().splitlines()) for path in modules()}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (it for it in ast.walk(tree(path)) if isinstance(it, ast.FunctionDef | ast.AsyncFunctionDef))


def test_no_function_is_longer_than_60_lines() -> None:
    lengths = {
        f"{named(path)}:{it.lineno} {it.name}": (it.end_lineno or it.lineno) - it.lineno + 1
        for path in modules()
        for it in functions(path)
    }
    assert {name: length for name, length in lengths.items() if length > 60} == {}


def test_no_function_has_more_than_six_parameters() -> None:
    wrong = {}
    for path in modules():
        exempt = set(MANY_PARAMETERS)
        if named(path).startswith("cli/"):
            exempt |= {it.name for it in functions(path) if it.decorator_list}  # a command's options
        for it in functions(path):
            names = [a.arg for a in (*it.args.posonlyargs, *it.args.args, *it.args.kwonlyargs)]
            if names[:1] in (["self"], ["cls"]):
                del names[0]
            allowed = it.name in exempt or (named(path), it.name) == ("app.py", "__init__")
            if len(names) > 6 and not allowed:
                wrong[f"{named(path)}:{it.lineno} {it.name}"] = len(names)
    assert wrong == {}


def test_every_module_has_a_docstring_and_lazy_annotations() -> None:
    for path in modules():
        assert ast.get_docstring(tree(path)), f"{named(path)} has no docstring"
        lazy = "from __future__ import annotations" in path.read_text()
        assert lazy or len(tree(path).body) == 1 or path.name == "__init__.py", f"{named(path)}: no lazy annotations"


IMPORT = """
import sys
seen = []
sys.addaudithook(lambda event, details: seen.append(event) if event.startswith(("socket.", "os.fork", "subprocess")) else None)
import amqpworker
from amqpworker import App
app = App("amqp://guest:guest@127.0.0.1:1/")

@app.task(name="a.b", queue="q")
def task(number: int) -> int:
    return number

app.remote
import threading
assert threading.active_count() == 1, threading.enumerate()
assert not seen, seen
"""


def test_importing_amqpworker_and_defining_tasks_starts_no_thread_and_opens_no_socket() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", IMPORT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("word", ["skip(", "skipif(", "importorskip(", "xfail"])
def test_no_test_is_skipped(word: str) -> None:
    found = [
        path.relative_to(TESTS).as_posix()
        for path in sorted(TESTS.rglob("*.py"))
        if path != Path(__file__) and re.search(rf"pytest\.(mark\.)?{re.escape(word)}", path.read_text())
    ]
    assert found == []


def test_only_its_own_methods_write_the_attributes_of_a_consumer_channel() -> None:
    """Whether a delivery can be claimed, requeued and acknowledged is decided in one file."""
    path = ROOT / "broker" / "consumer_channel.py"
    owned = {
        target.attr
        for it in ast.walk(tree(path))
        if isinstance(it, ast.Assign | ast.AnnAssign | ast.AugAssign)
        for target in (it.targets if isinstance(it, ast.Assign) else [it.target])
        if isinstance(target, ast.Attribute)
    }
    assert {"is_open", "unclaimed", "consumer_tag"} <= owned
    of_a_channel = re.compile(r"\b(?:consumer_)?channel\.(\w+)(?: = |\.(?:pop|clear|add|discard|update)\()")
    wrong = [
        f"{named(other)}: {found.group()}"
        for other in modules()
        if other != path and not named(other).startswith("testing/")
        for found in of_a_channel.finditer(other.read_text())
        if found.group(1) in owned
    ]
    assert not wrong, "\n".join(wrong)


def test_outcomes_are_made_in_one_place() -> None:
    kinds = {
        "Done",
        "Retry",
        "Snooze",
        "Postpone",
        "Deferred",
        "Dead",
        "Cancelled",
        "Requeue",
        "Republish",
        "Discarded",
        "AlreadyDone",
    }
    wrong = [
        f"{named(path)}:{it.lineno} {it.func.id}"
        for path in modules()
        for it in ast.walk(tree(path))
        if isinstance(it, ast.Call) and isinstance(it.func, ast.Name) and it.func.id in kinds
        if named(path) != "worker/outcomes.py"
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("file", "owner", "attribute"),
    [
        ("model/message.py", "Delivery", "channel"),
        ("worker/context.py", "Run", "registered"),
        ("worker/limits/limits.py", "RunDeadline", "run"),
        ("broker/consumer_channel.py", "ConsumerChannel", "ack_tracker"),
    ],
)
def test_what_joins_the_parts_has_a_type(file: str, owner: str, attribute: str) -> None:
    (found,) = (it for it in tree(ROOT / file).body if isinstance(it, ast.ClassDef) and it.name == owner)
    text = ast.unparse(found)
    assert re.search(rf"\b{attribute}: (?!Any\b)\w+|self\.{attribute} = [A-Z]\w+\(\)", text)
    assert not re.search(rf"\b{attribute}: Any\b", text)
