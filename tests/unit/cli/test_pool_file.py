"""The file with pools: what it means, and how a mistake in it is reported."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.cli.pool_file import ConfigFile, PoolTable, pool_spec, read_config, scheduler_spec
from amqpworker.errors import ConfigError
from amqpworker.scheduler.scheduler_options import SchedulerOptions, SchedulerTable
from amqpworker.supervisor.launch import SupervisorConfig
from amqpworker.supervisor.pools import Recycling
from amqpworker.worker.options import QueueOptions, WorkerOptions

WHOLE = """
health = "127.0.0.1:8080"
log_level = "warning"
log_json = true

[[pools]]
name = "mail"
app = "shop.tasks:app"
processes = 2
threads = 16
prefetch = 32
async_tasks = 7
max_suspects = 2
drain_timeout = 120
log_tasks = "all"
max_tasks = 1000
max_hours = 24
max_memory = 500
stall_timeout = 90
start_timeout = 300
queues = ["emails", { name = "reports", threads = 2, prefetch = 4 }]

[[pools]]
name = "other"
"""


def read(folder: Path, text: str | bytes, app: str | None = None) -> SupervisorConfig:
    path = folder / "pools.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_config(path, app, 3)


def test_everything_in_a_file_reaches_the_supervisor_and_the_rest_has_its_default(tmp_path: Path) -> None:
    setup = read(tmp_path, WHOLE, app="other:app")
    assert (setup.health, setup.log_level, setup.log_json) == ("127.0.0.1:8080", "warning", True)
    mail, other = setup.pools
    queues = (QueueOptions(name="emails"), QueueOptions(name="reports", threads=2, prefetch=4))
    assert WorkerOptions.model_validate_json(json.dumps(mail.options)) == WorkerOptions(
        app="shop.tasks:app",
        processes=2,
        threads=16,
        prefetch=32,
        async_tasks=7,
        max_suspects=2,
        queues=queues,
        drain_timeout=120,
        log_tasks="all",
        max_tasks=1000,
        max_hours=24,
        max_memory=500,
        stall_timeout=90,
        start_timeout=300,
        log_level="warning",
        log_json=True,
    )
    assert (mail.name, mail.processes, mail.stall_timeout, mail.start_timeout) == ("mail", 2, 90, 300)
    assert mail.recycling == Recycling(1000, 24 * 3600, 500 * 1024 * 1024)
    assert other == pool_spec("other", WorkerOptions(app="other:app", processes=3, log_level="warning", log_json=True))


POOL = '[[pools]]\nname = "mail"\napp = "shop:app"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "pools: there are none: write [[pools]], and below it name = …"),
        ("pools = 3", "pools: must be a valid list, got 3"),
        ("pools = [3]", "pool 1: must be a table, got 3"),
        ("[pools]\nname = 'a'", "pools: write [[pools]] in two brackets."),
        ("[[pools]]\napp = 'a:b'", "pool 1, name: is missing"),
        (
            "[[pools]]\nname = 'a b'\napp = 'a:b'",
            "pool 'a b', name: must be at most 64 letters, digits, '.', '_' and '-', got 'a b'",
        ),
        ('[[pools]]\nname = "mail"', "pool 'mail', app: is missing, and AMQPWORKER_APP is not set."),
        (POOL + POOL, "pools: two pools have the name 'mail'"),
        (POOL + "[scheduler]\nname = ''", "scheduler, name: Scheduler name must be a non-empty string, got ''."),
        (POOL + "[scheduler]\nname = 'amq.x'", "scheduler, name: Scheduler name must not begin with 'amq.'"),
        (POOL + "[scheduler]\nname = 5", "scheduler, name: must be a valid string, got 5"),
        (POOL + "[scheduler]\nfile = ''", "scheduler, file: must have at least 1 character, got ''"),
        (POOL + "[scheduler]\nfiles = 'a'", "scheduler, files: unknown key (did you mean file?)"),
        (POOL + "[scheduler]\nprocesses = 2", "scheduler, processes: unknown key."),
        (POOL + "[scheduler]\nhealth = 'a'", "scheduler, health: belongs to the whole file: write it above the first"),
        (
            POOL + "[scheduler]\nstall_timeout = 0",
            "scheduler, stall_timeout: must be greater than or equal to 1, got 0",
        ),
        ("scheduler = 3\n" + POOL, "scheduler: must be a table, got 3"),
        (POOL + "[[scheduler]]\n", "scheduler: must be a table, got [{"),
        ("[scheduler]\nname = 'a'", "scheduler, app: is missing, and AMQPWORKER_APP is not set."),
        (
            POOL + "[[pools]]\nname = 'b'\napp = 'b:b'\n[scheduler]",
            "scheduler, app: is missing, and AMQPWORKER_APP is not set.",
        ),
        (
            "[[pools]]\nname = 'scheduler'\napp = 'a:b'\n[scheduler]",
            "pools: no pool can have the name 'scheduler' beside [scheduler].",
        ),
        (POOL + "queues = ['a', 'a']", "pool 'mail', queues: queue 'a' is named twice"),
        (POOL + "queues = ['a', {name = 'a', threads = 2}]", "pool 'mail', queues: queue 'a' is named twice"),
        (POOL + "queues = 'a'", "pool 'mail', queues: must be a valid list, got 'a'"),
        (
            POOL + "queues = []",
            "pool 'mail', queues: the list is empty: name queues, or omit the key to consume all queues of the app",
        ),
        (POOL + "queues = [5]", "pool 'mail', queue 1: must be a table, got 5"),
        (POOL + "queues = [{threads = 5}]", "pool 'mail', queue 1, name: is missing"),
        (POOL + "queues = [{name = 'a', thread = 5}]", "queue 'a', thread: unknown key (did you mean threads?)"),
        (POOL + "queues = [{name = 'a', threads = 0}]", "queue 'a', threads: must be greater than or equal to 1"),
        (POOL + "thread = 5", "pool 'mail', thread: unknown key (did you mean threads?)"),
        ("thread = 5\n" + POOL, "thread: unknown key."),
        ("url = 'amqp://u:hidden@h/'\n" + POOL, "url: unknown key."),
        (POOL + "threads = '8'", "pool 'mail', threads: must be a valid integer, got '8'"),
        (POOL + "threads = true", "pool 'mail', threads: must be a valid integer, got True"),
        (POOL + "threads = 1.5", "pool 'mail', threads: must be a valid integer, got 1.5"),
        (POOL + "threads = 0", "pool 'mail', threads: must be greater than or equal to 1, got 0"),
        (POOL + "processes = 0", "pool 'mail', processes: must be greater than or equal to 1, got 0"),
        (POOL + "processes = 1001", "pool 'mail', processes: must be less than or equal to 1000, got 1001"),
        (POOL + 'log_tasks = "none"', "pool 'mail', log_tasks: must be 'all' or 'failed', got 'none'"),
        (POOL + "drain_timeout = nan", "pool 'mail', drain_timeout: must be a finite number, got nan"),
        (POOL + "max_hours = 0", "pool 'mail', max_hours: must be greater than or equal to 0.001, got 0"),
        (POOL + "max_hours = 1e308", "pool 'mail', max_hours: must be less than or equal to 87600, got 1e+308"),
        (POOL + "log_level = 'info'", "pool 'mail', log_level: belongs to the whole file: write it above the first"),
        (POOL + "stall_timeout = inf", "pool 'mail', stall_timeout: must be a finite number, got inf"),
        ("log_level = 'loud'\n" + POOL, "log_level: must be 'debug', 'info', 'warning', 'error' or 'critical'"),
        ("health = 'here'\n" + POOL, "health: give HOST:PORT, such as 127.0.0.1:8080, or the path of a unix socket"),
        ("health = 8080\n" + POOL, "health: must be a valid string, got 8080"),
        ("x = [", "is not TOML: Invalid value"),
        (POOL + "threads = 1\nthreads = 2", "is not TOML: Cannot overwrite a value"),
        ("x = " + "[" * 100_000, "is not TOML: "),
        (b"\xff\xfe", "is not TOML: it is not in UTF-8"),
    ],
)
def test_a_mistake_is_reported_with_the_file_the_key_and_what_is_wrong(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, text)
    line = str(raised.value)
    assert line.startswith(f"{tmp_path}/pools.toml: ")
    assert message in line
    assert line.endswith(".")
    assert "hidden" not in line


@pytest.mark.parametrize(
    ("text", "app", "expected"),
    [
        (POOL + "[scheduler]", None, "shop:app"),
        (POOL + "[scheduler]", "other:app", "shop:app"),
        (POOL + "[scheduler]\napp = 'own:app'", "other:app", "own:app"),
        (POOL + "[[pools]]\nname = 'b'\napp = 'b:b'\n[scheduler]", "other:app", "other:app"),
        (POOL + "[[pools]]\nname = 'b'\n[scheduler]", "shop:app", "shop:app"),
        ("[scheduler]", "other:app", "other:app"),
    ],
)
def test_a_scheduler_without_an_app_has_that_of_all_pools_or_that_of_the_environment(
    tmp_path: Path, text: str, app: str | None, expected: str
) -> None:
    spec = read(tmp_path, text, app).pools[-1]
    assert spec == scheduler_spec(SchedulerOptions(app=expected))
    assert (spec.processes, spec.slots, spec.recycling) == (1, 0, Recycling())
    assert spec.program == "amqpworker.scheduler"


def test_everything_about_a_scheduler_in_a_file_reaches_its_process(tmp_path: Path) -> None:
    table = "name = 'night'\nfile = 'more.toml'\nstall_timeout = 9\nstart_timeout = 300"
    (spec,) = read(tmp_path, f"log_json = true\n[scheduler]\napp = 'a:b'\n{table}").pools
    assert SchedulerOptions.model_validate_json(json.dumps(spec.options)) == SchedulerOptions(
        app="a:b", name="night", file="more.toml", stall_timeout=9, start_timeout=300, log_json=True
    )
    assert (spec.name, spec.stall_timeout, spec.start_timeout) == ("scheduler", 9, 300)


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, POOL + "threads = 0\nprocess = 3")
    assert "threads: must be" in str(raised.value)
    assert "process: unknown key (did you mean processes?)" in str(raised.value)


def test_a_file_that_cannot_be_read_is_reported(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=f"^{path}: cannot be read: {message}.$"):
            read_config(path, None, 1)


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.integers(-5, 70_000) | st.booleans() | st.sampled_from(["a", "a:b", "", "127.0.0.1:80"]) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "threads", "x"]), inner),
    max_leaves=5,
)
KEYS = st.sampled_from([*PoolTable.model_fields, *WorkerOptions.model_fields, "x y"])


def toml(value: Any) -> str:
    """Return a value as TOML has it inline."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return "{" + ", ".join(f'"{key}" = {toml(held)}' for key, held in value.items()) + "}"
    return str(value)


@given(st.dictionaries(KEYS, VALUES), st.dictionaries(st.sampled_from(["health", "log_level", "y"]), VALUES))
def test_whatever_a_file_holds_is_pools_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, pool: dict[str, Any], top: dict[str, Any]
) -> None:
    text = [f'"{key}" = {toml(held)}' for key, held in top.items()]
    text += ["[[pools]]", *(f'"{key}" = {toml(held)}' for key, held in pool.items())]
    try:
        setup = read(tmp_path_factory.getbasetemp(), "\n".join(text))
    except ConfigError:
        return
    assert len(setup.pools) == 1


def test_the_example_has_every_key_and_is_in_the_docs() -> None:
    root = Path(__file__).parents[3]
    example = root / "deploy/pools.toml"
    assert [pool.name for pool in read_config(example, None, 1).pools] == ["mail", "images", "scheduler"]
    held = tomllib.loads(example.read_text())
    assert {*held} == {*ConfigFile.model_fields}
    assert {*held["pools"][0]} == {*PoolTable.model_fields}
    assert {*held["scheduler"]} == {*SchedulerTable.model_fields}
    assert example.read_text() in (root / "docs/operations.md").read_text()
