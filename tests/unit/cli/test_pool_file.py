"""The file with pools: what it means, and how a mistake in it is told."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqpworker.cli.pool_file import ConfigFile, PoolTable, read_config
from amqpworker.errors import ConfigError
from amqpworker.supervisor.launch import SupervisorConfig
from amqpworker.supervisor.pools import PoolSpec, Recycling
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
isolated = 2
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


def test_everything_that_a_file_says_reaches_the_supervisor_and_the_rest_has_its_default(tmp_path: Path) -> None:
    setup = read(tmp_path, WHOLE, app="other:app")
    assert (setup.health, setup.log_level, setup.log_json) == ("127.0.0.1:8080", "warning", True)
    mail, other = setup.pools
    queues = (QueueOptions(name="emails"), QueueOptions(name="reports", threads=2, prefetch=4))
    assert WorkerOptions.model_validate_json(json.dumps(mail.options)) == WorkerOptions(
        app="shop.tasks:app",
        threads=16,
        prefetch=32,
        async_tasks=7,
        isolated=2,
        queues=queues,
        drain_timeout=120,
        log_tasks="all",
        stall_timeout=90,
        start_timeout=300,
        log_level="warning",
        log_json=True,
    )
    assert (mail.name, mail.processes, mail.stall_timeout, mail.start_timeout) == ("mail", 2, 90, 300)
    assert mail.recycling == Recycling(1000, 24 * 3600, 500 * 1024 * 1024)
    defaults = WorkerOptions(app="other:app", log_level="warning", log_json=True)
    assert other == PoolSpec("other", 3, defaults.model_dump(mode="json"), defaults.slots)


POOL = '[[pools]]\nname = "mail"\napp = "shop:app"\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "pools: there is none: write [[pools]], and below it name = …"),
        ("pools = 3", "pools: it should be a valid list, not 3"),
        ("pools = [3]", "pool 1: it must be a table, not 3"),
        ("[pools]\nname = 'a'", "pools: each pool begins with [[pools]], in two brackets."),
        ("[[pools]]\napp = 'a:b'", "pool 1, name: it is missing"),
        ("[[pools]]\nname = 'a b'\napp = 'a:b'", "pool 'a b', name: letters, digits, '.', '_' and '-' are allowed"),
        ('[[pools]]\nname = "mail"', "pool 'mail', app: it is missing, and AMQPWORKER_APP is not set either"),
        (POOL + POOL, "pools: there are two pools with the name 'mail'"),
        (POOL + "queues = ['a', 'a']", "pool 'mail', queues: queue 'a' is named twice"),
        (POOL + "queues = ['a', {name = 'a', threads = 2}]", "pool 'mail', queues: queue 'a' is named twice"),
        (POOL + "queues = 'a'", "pool 'mail', queues: it should be a valid list, not 'a'"),
        (
            POOL + "queues = []",
            "pool 'mail', queues: there is none: name some, or leave the key out for all of the app",
        ),
        (POOL + "queues = [5]", "pool 'mail', queue 1: it must be a table, not 5"),
        (POOL + "queues = [{threads = 5}]", "pool 'mail', queue 1, name: it is missing"),
        (POOL + "queues = [{name = 'a', thread = 5}]", "queue 'a', thread: there is no such key (is it threads?)"),
        (POOL + "queues = [{name = 'a', threads = 0}]", "queue 'a', threads: it should be greater than or equal to 1"),
        (POOL + "thread = 5", "pool 'mail', thread: there is no such key (is it threads?)"),
        ("thread = 5\n" + POOL, "thread: there is no such key."),
        ("url = 'amqp://u:hidden@h/'\n" + POOL, "url: there is no such key."),
        (POOL + "threads = '8'", "pool 'mail', threads: it should be a valid integer, not '8'"),
        (POOL + "threads = true", "pool 'mail', threads: it should be a valid integer, not True"),
        (POOL + "threads = 1.5", "pool 'mail', threads: it should be a valid integer, not 1.5"),
        (POOL + "threads = 0", "pool 'mail', threads: it should be greater than or equal to 1, not 0"),
        (POOL + "processes = 0", "pool 'mail', processes: it should be greater than or equal to 1, not 0"),
        (POOL + "processes = 1001", "pool 'mail', processes: it should be less than or equal to 1000, not 1001"),
        (POOL + 'log_tasks = "none"', "pool 'mail', log_tasks: it should be 'all' or 'failed', not 'none'"),
        (POOL + "drain_timeout = nan", "pool 'mail', drain_timeout: it should be a finite number, not nan"),
        (POOL + "max_hours = 0", "pool 'mail', max_hours: it should be greater than or equal to 0.001, not 0"),
        (POOL + "max_hours = 1e308", "pool 'mail', max_hours: it should be less than or equal to 87600, not 1e+308"),
        (POOL + "log_level = 'info'", "pool 'mail', log_level: it belongs to the whole file: write it above the first"),
        (POOL + "stall_timeout = inf", "pool 'mail', stall_timeout: it should be a finite number, not inf"),
        ("log_level = 'loud'\n" + POOL, "log_level: it should be 'debug', 'info', 'warning', 'error' or 'critical'"),
        ("health = 'here'\n" + POOL, "health: give HOST:PORT, such as 127.0.0.1:8080, or the path of a unix socket"),
        ("health = 8080\n" + POOL, "health: it should be a valid string, not 8080"),
        ("x = [", "it is no TOML: Invalid value"),
        (POOL + "threads = 1\nthreads = 2", "it is no TOML: Cannot overwrite a value"),
        ("x = " + "[" * 100_000, "it is no TOML: "),
        (b"\xff\xfe", "it is no TOML: it is not in UTF-8"),
    ],
)
def test_a_mistake_is_told_with_the_file_the_key_and_what_is_wrong(
    tmp_path: Path, text: str | bytes, told: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, text)
    line = str(raised.value)
    assert line.startswith(f"{tmp_path}/pools.toml: ")
    assert told in line
    assert line.endswith(".")
    assert "hidden" not in line


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read(tmp_path, POOL + "threads = 0\nprocess = 3")
    assert "threads: it should be" in str(raised.value)
    assert "process: there is no such key (is it processes?)" in str(raised.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for path, told in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError, match=f"^{path}: it cannot be read: {told}.$"):
            read_config(path, None, 1)


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.integers(-5, 70_000) | st.booleans() | st.sampled_from(["a", "a:b", "", "127.0.0.1:80"]) | st.floats(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "threads", "x"]), inner),
    max_leaves=5,
)
KEYS = st.sampled_from([*PoolSpec.__dataclass_fields__, *WorkerOptions.model_fields, "max_hours", "x y"])


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


def test_the_example_is_a_file_with_every_key_and_stands_in_the_docs() -> None:
    root = Path(__file__).parents[3]
    example = root / "deploy/pools.toml"
    assert [pool.name for pool in read_config(example, None, 1).pools] == ["mail", "images"]
    held = tomllib.loads(example.read_text())
    assert {*held} == {*ConfigFile.model_fields}
    assert {*held["pools"][0]} == {*PoolTable.model_fields}
    assert example.read_text() in (root / "docs/operations.md").read_text()
