"""The documentation states what the code does: figures, names and links, held without a broker."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import amqpworker
from amqpworker import App, errors
from amqpworker.client.sent import Sent
from amqpworker.errors import AmqpWorkerError, TaskSignal
from amqpworker.model.headers import time_of
from amqpworker.routing.delay import route, units
from amqpworker.routing.topology import LEVELS, Names, base, ladder, scheduler, work_queue
from amqpworker.scheduler.token import Token, token_fields
from amqpworker.schedules.tick import tick_id
from amqpworker.task import RemoteTask
from tests.docs import PAGES, ROOT, blocks, table

PACKAGE = Path(amqpworker.__file__).parent
VECTOR = re.compile(r"^\| ([\d.]+) \| (\d+) \| `([^`]+)` \| (.*?) ?\|$", re.MULTILINE)


def vectors() -> list[tuple[str, ...]]:
    return VECTOR.findall((ROOT / "docs/wire.md").read_text())


def test_the_wire_contract_has_vectors_from_no_delay_to_the_longest() -> None:
    delays = [float(row[0]) for row in vectors()]
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (0, (2**LEVELS - 1) / 8)


@pytest.mark.parametrize("vector", vectors(), ids=lambda vector: vector[0])
def test_a_vector_of_the_wire_contract_is_the_way_that_the_ladder_takes(vector: tuple[str, ...]) -> None:
    delay, count, exchange, told = vector
    way = route(Names(), float(delay))
    assert units(float(delay)) == int(count)
    assert way.exchange == exchange
    headers = [f"aw-wait-{n:02d}" for n in range(LEVELS - 1, -1, -1)] if "all" in told else re.findall("aw-[^`]+", told)
    assert list(way.headers) == headers


def test_the_ids_of_ticks_in_the_wire_contract_are_those_of_the_rule_above_them() -> None:
    rows = table((ROOT / "docs/wire.md").read_text(), "| namespace | scheduler | schedule | time | id |")
    assert len(rows) == 3
    for namespace, name, schedule, time, told in ([cell.strip("`") for cell in row] for row in rows):
        nominal = time_of(time)
        assert nominal is not None
        assert tick_id(namespace, name, schedule, nominal) == told


def test_the_wire_contract_has_the_fields_of_a_token() -> None:
    rows = table((ROOT / "docs/wire.md").read_text(), "| `type` | body | meaning |")
    times = {"nightly": 0}
    fields = token_fields(Token(0, lagging=times, paused=times, running=times, leader="host:1", since=0))
    assert re.findall(r'"(\w+)"', rows[0][1].replace('"host:pid"', "")) == list(fields)


def test_the_wire_contract_names_every_header_of_ours() -> None:
    page = (ROOT / "docs/wire.md").read_text()
    source = (PACKAGE / "model/headers.py").read_text()
    names = set(re.findall(r'"(aw-[a-z-]+[a-z])"', source))
    assert len(names) > 10
    assert [name for name in names if f"`{name}`" not in page] == []


def test_the_topology_page_names_every_exchange_and_argument() -> None:
    page = (ROOT / "docs/topology.md").read_text()
    made = (
        base("amqpworker") + ladder("amqpworker") + work_queue("amqpworker", "emails") + scheduler("amqpworker", "main")
    )
    told = [re.sub(r"delay\.\d\d", "delay.", exchange.name) for exchange in made.exchanges]
    arguments = {name for queue in made.queues for name in queue.arguments}
    keys = {name for name in arguments if not name.startswith("x-dead-letter-")} | {"x-dead-letter-strategy"}
    assert [name for name in (*told, *keys) if name not in page] == []


def logged_events(path: Path) -> Iterator[str]:
    """Yield the events that a module logs by `log.LEVEL("event")`, or has logged by `_log("LEVEL", "event")` or `WriteLog`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "WriteLog":
            yield from (one.value for one in ast.walk(node.args[1]) if isinstance(one, ast.Constant) and one.value)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            said = node.func.attr in {"_log", "_log_process"}
            if said or node.func.attr in {"debug", "info", "warning", "error", "exception", "critical"}:
                first = node.args[1 if said else 0] if len(node.args) > said else None
                yield from (
                    one.value for one in ast.walk(first or node.func) if isinstance(one, ast.Constant) and one.value
                )


def test_the_operations_page_has_a_row_for_every_event_that_is_logged() -> None:
    _, table = (ROOT / "docs/operations.md").read_text().split("| event | means | action |")
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
    listed = {event for row in rows for event in re.findall(r"`(\w+)`", row[1])}
    events = {str(event) for path in PACKAGE.rglob("*.py") for event in logged_events(path)}
    assert {"pool_started", "task_dead", "task_postponed", "orphan_reaper_lost"} <= events
    assert sorted(events - listed) == []
    assert all(part.strip() for row in rows for part in row[2:4])


def renamed(kind: str) -> dict[str, set[str]]:
    """Return the old and the new names of one kind that the page about upgrades lists."""
    _, _, below = (ROOT / "docs/upgrading.md").read_text().partition(f"\n### {kind}\n")
    rows = [line.split("|") for line in below.partition("\n#")[0].splitlines() if re.match(r"\| `[^|]+` \| `", line)]
    return {name: {*re.findall(r"`(\w+)`", row[2])} for row in rows for name in re.findall(r"`(\w+)`", row[1])}


def test_errors_and_events_that_were_renamed_have_only_their_new_names() -> None:
    events = {str(event) for path in PACKAGE.rglob("*.py") for event in logged_events(path)}
    for kind, names in (("Errors", {*vars(errors)}), ("Log events", events)):
        changes = renamed(kind)
        assert len(changes) > 3
        assert {old for old in changes if old in names} == set()
        assert {new for news in changes.values() for new in news if new not in names} == set()


def test_the_errors_page_describes_every_error_of_the_package() -> None:
    page = (ROOT / "docs/errors.md").read_text()
    found = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, AmqpWorkerError | TaskSignal) and value is not TaskSignal
    ]
    assert len(found) > 15
    assert [name for name in found if f"`{name}" not in page] == []


@pytest.mark.parametrize("of", ["Celery", "Dramatiq"])
def test_the_page_about_migrating_names_only_what_exists(of: str) -> None:
    rows = table((ROOT / "docs/migrating.md").read_text(), f"| {of} | amqpworker |")
    assert len(rows) > 20
    calls: dict[str, Callable[..., Any]] = {
        "task": App.task,
        "options": RemoteTask.options,
        "remote": App.remote,
        "schedule": RemoteTask.schedule,
        "App": App,
        "RetryLater": amqpworker.RetryLater,
        "result": Sent.result,
        "cancel": Sent.cancel,
    }
    named = [call for row in rows for call in re.findall(r'(\w+)\((?:"\w+", )?([a-z_]+=[^()]*)', row[1])]
    assert {name for name, _ in named} == {*calls} - ({"remote"} if of == "Dramatiq" else set())
    for name, arguments in named:
        assert {*re.findall(r"(\w+)=", arguments)} <= {*inspect.signature(calls[name]).parameters}
    properties = {each for row in rows for each in re.findall(r"current\(\)\.(\w+)", row[1])}
    assert {"id", "attempt"} <= properties <= {*dir(amqpworker.Run)}
    methods = {each for row in rows for each in re.findall(r"(?<=`)sent\.(\w+)\(", row[1])}
    assert "result" in methods
    assert methods <= {*dir(Sent)}


def test_the_errors_that_the_page_about_migrating_shows_are_those_that_are_raised() -> None:
    page = (ROOT / "docs/migrating.md").read_text()
    app = App("amqp://127.0.0.1:1/")

    @app.task(name="shop.send_welcome")
    def send_welcome(user_id: int) -> None: ...

    shown = re.findall(r"^>>> (.*)\n(.*)$", page, re.MULTILINE)
    assert len(shown) == 2
    for code, text in shown:
        with pytest.raises((TypeError, AttributeError)) as caught:
            eval(code, {"send_welcome": send_welcome})
        assert f"{type(caught.value).__name__}: {caught.value}" == text


def test_the_structure_page_names_every_module_in_its_folder() -> None:
    rows = [row.split("|") for row in (ROOT / "docs/structure.md").read_text().splitlines() if row.startswith("| `")]
    listed = [
        f"{row[1].strip(' `').removeprefix('amqpworker/')}{stem}.py"
        for row in rows
        if re.fullmatch(r" `[a-z/]+/` ", row[1])
        for stem in re.findall(r"`(\w+)`", row[2])
    ]
    there = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    assert sorted(listed) == sorted(there)


def test_the_structure_page_points_only_to_files_that_exist() -> None:
    paths = set(re.findall(r"`([\w/]+\.py)`", (ROOT / "docs/structure.md").read_text()))
    assert [path for path in sorted(paths) if not (PACKAGE / path).exists() and not (ROOT / path).exists()] == []


def test_every_link_leads_to_a_page_and_a_heading_that_exist() -> None:
    wrong = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
            if target.startswith("http"):
                continue
            path, _, anchor = target.partition("#")
            there = (page.parent / path).resolve() if path else page
            headings = re.findall(r"^#+ (.*)$", there.read_text(), re.MULTILINE) if there.suffix == ".md" else []
            anchors = {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}
            if not there.exists() or (anchor and anchor not in anchors):
                wrong.append(f"{page.name}: {target}")
    assert wrong == []


def test_the_readme_fits_a_reader_and_names_the_test_command_that_the_checks_call() -> None:
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 200
    assert re.search(r"^make test\b", "".join(blocks(ROOT / "README.md", "sh")), re.MULTILINE)
    assert "for target in test " in (ROOT / ".ci/run").read_text()


@pytest.mark.filterwarnings("ignore:The 'initial' parameter:DeprecationWarning")  # of tenacity
def test_the_schedule_that_the_readme_shows_can_be_defined() -> None:
    names: dict[str, Any] = {"__name__": "billing"}
    exec(blocks(ROOT / "README.md", "python")[2], names)
    (code,) = re.findall(r"`(remind\.schedule\(.*?\)\(.*?\))`", (ROOT / "README.md").read_text())
    assert str(eval(code, names)) == "weekly: billing.remind, 0 9 * * MON Europe/Paris"


def test_python_on_the_pages_is_python() -> None:
    for page in PAGES:
        for block in blocks(page, "python"):
            compile(block, page.name, "exec")


def test_no_page_is_wider_than_a_screen_but_for_tables_and_vectors() -> None:
    wide = [
        f"{page.name}: {line}"
        for page in PAGES
        for line in page.read_text().splitlines()
        if len(line) > 130 and not line.startswith("|")
    ]
    assert wide == []
