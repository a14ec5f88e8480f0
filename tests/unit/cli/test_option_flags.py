"""Options come from one model: the command line, the pool file, the processes of a pool and the documentation."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from pydantic import Field

from amqpworker.cli.main import UsageError
from amqpworker.cli.option_flags import flagged, flags_of, takes_options_of
from amqpworker.cli.pool_file import ConfigFile, PoolTable, read_config, scheduler_spec
from amqpworker.cli.scheduler_command import MODELS as SCHEDULER_MODELS
from amqpworker.cli.scheduler_command import scheduler_app
from amqpworker.cli.worker_command import MODELS, config_from_flags, worker_app
from amqpworker.errors import ConfigError
from amqpworker.scheduler.scheduler_options import SchedulerOptions, SchedulerTable
from amqpworker.worker.options import Flag, PoolOptions, WorkerOptions

TABLES = {"pools", "scheduler"}
OF_SCHEDULER = {"scheduler", "scheduler_name", "scheduler_file"}
SETTINGS = Path(__file__).parents[3] / "docs/settings.md"


def command_options(app: typer.Typer) -> dict[str, Any]:
    """Return the options of a command by their names."""
    found = {str(one.name): one for one in typer.main.get_command(app).params}
    return {name: one for name, one in found.items() if not name.endswith("_completion")}


def test_a_field_that_a_model_gets_is_an_option_with_its_flag_bounds_default_and_help() -> None:
    class Extended(PoolOptions):
        most_moons: Annotated[int, Flag("MOONS", names=("-m", "--moons"))] = Field(3, ge=2, le=9, description="Moons.")
        shiny: Annotated[float | None, Flag("LUX", "as the sun")] = Field(None, description="Light.")

    given: dict[str, Any] = {}
    program = typer.Typer(add_completion=False)

    @program.command()
    @takes_options_of(Extended)
    def command(context: typer.Context, *, check: bool = False, **options: Any) -> None:
        given.update(options, check=check)

    options = command_options(program)
    assert options.keys() - {"check"} == {name for name, _, _ in flagged(Extended)}
    moons, shiny = options["most_moons"], options["shiny"]
    assert (moons.opts, moons.default, moons.help, moons.metavar) == (["-m", "--moons"], 3, "Moons.", "MOONS")
    for wrong in ("1", "10"):
        with pytest.raises(UsageError):
            typer.main.get_command(program)(["-m", wrong], standalone_mode=False)
    assert (shiny.opts, shiny.default, shiny.show_default) == (["--shiny"], None, "as the sun")
    typer.main.get_command(program)(["-m", "4", "--shiny", "0.5", "--check", "-q", "a"], standalone_mode=False)
    assert (given["most_moons"], given["shiny"], given["check"], given["queues"]) == (4, 0.5, True, ["a"])
    assert given["threads"] == 8


@pytest.mark.parametrize("model", SCHEDULER_MODELS)
def test_every_field_of_a_scheduler_is_an_option_of_its_command_with_the_default_of_the_model(model: Any) -> None:
    options = command_options(scheduler_app)
    for name, field in model.model_fields.items():
        if name not in TABLES:
            assert options[name].default == (field.default if name != "app" else None)
            assert options[name].help == field.description


@pytest.mark.parametrize("model", [PoolOptions, ConfigFile])
def test_every_field_of_a_pool_is_an_option_of_the_worker_command_with_the_default_of_the_model(model: Any) -> None:
    options = command_options(worker_app)
    for name, field in model.model_fields.items():
        if name not in TABLES:
            assert options[name].default == (field.default if name not in {"app", "queues"} else None)
            assert options[name].help == field.description


def test_every_option_of_the_worker_command_is_a_key_of_the_file_and_reaches_each_process(tmp_path: Path) -> None:
    keys = {*PoolTable.model_fields, *ConfigFile.model_fields}
    assert command_options(worker_app).keys() - OF_SCHEDULER - {"config", "check", "as_json"} == keys - {
        "name",
        *TABLES,
    }
    path = tmp_path / "pools.toml"
    path.write_text("[[pools]]\nname = 'mail'")
    (pool,) = read_config(path, "shop:app", 2).pools
    assert pool.options.keys() == WorkerOptions.model_fields.keys() == keys - {"name", "health", *TABLES}


def test_every_option_of_the_scheduler_command_is_a_key_of_the_file_and_reaches_the_process(tmp_path: Path) -> None:
    keys = {*SchedulerTable.model_fields, *ConfigFile.model_fields}
    assert command_options(scheduler_app).keys() - {"check", "as_json"} == keys - TABLES
    path = tmp_path / "pools.toml"
    path.write_text("[scheduler]")
    (scheduler,) = read_config(path, "shop:app", 2).pools
    assert scheduler.options.keys() == SchedulerOptions.model_fields.keys() == keys - {"health", *TABLES}


def test_the_options_of_a_worker_that_begin_with_scheduler_reach_its_scheduler_and_the_timeouts_both() -> None:
    shared = {"stall_timeout": 9.0, "start_timeout": 300.0}
    own = {"scheduler": True, "scheduler_name": "night", "scheduler_file": "more.toml"}
    main, scheduler = config_from_flags("shop:app", {**shared, **own, "log_json": True, "processes": 1}).pools
    expected = SchedulerOptions(app="shop:app", name="night", file="more.toml", log_json=True, **shared)
    assert scheduler == scheduler_spec(expected)
    assert (main.stall_timeout, main.start_timeout) == (9.0, 300.0)
    assert [pool.kind for pool in config_from_flags("shop:app", {"scheduler": False}).pools] == ["worker"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scheduler_name": "night"}, "--scheduler-name can only be used with --scheduler."),
        ({"scheduler_file": "x", "scheduler": False}, "--scheduler-file can only be used with --scheduler."),
        (
            {"scheduler": True, "scheduler_name": ""},
            "--scheduler-name: Scheduler name must be a non-empty string, got ''.",
        ),
        ({"scheduler": True, "scheduler_file": ""}, "--scheduler-file: must have at least 1 character, got ''."),
        ({"scheduler": True, "stall_timeout": math.inf}, "--stall-timeout: must be a finite number, got inf."),
    ],
)
def test_a_mistake_in_the_options_of_a_scheduler_is_named_once_by_its_flag(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        config_from_flags("shop:app", given)
    assert str(raised.value) == message


def rows() -> list[str]:
    """Return the rows of the page about settings, an option each."""
    found = []
    for model in MODELS:
        for name, field, flag in flagged(model):
            flags = ", ".join(f"`{one}`" for one in re.split("[,/]", ",".join(reversed(flags_of(name, flag)))))
            found.append(f"| {flags} | `{name}` | {shown_default(field, flag)} | {field.description} |")
    return found


def scheduler_rows() -> list[str]:
    """Return the rows about schedulers: those of a worker that begin like it are for the scheduler alone."""
    found = []
    for name, field, flag in flagged(SchedulerTable):
        (own,) = flags_of(name, flag)
        of_worker = f"--scheduler{own[1:]}" if f"scheduler_{name}" in OF_SCHEDULER else own
        found.append(f"| `{own}` | `{of_worker}` | `{name}` | {shown_default(field, flag)} | {field.description} |")
    return found


def shown_default(field: Any, flag: Flag) -> str:
    """Return the default of an option as the page shows it."""
    plain = f"{field.default:g}" if isinstance(field.default, float) else field.default
    return flag.unset or ("none" if plain is None else f"`{plain}`")


def test_the_page_about_settings_has_a_row_for_every_option_of_a_scheduler() -> None:
    head = "| option | of a worker | in a pool file | default | meaning |\n| --- | --- | --- | --- | --- |\n"
    table = SETTINGS.read_text().partition(head)[2]
    assert table.partition("\n\n")[0].splitlines() == scheduler_rows()


def test_the_page_about_settings_has_a_row_for_every_option() -> None:
    _, _, table = SETTINGS.read_text().partition(
        "| option | in a pool file | default | meaning |\n| --- | --- | --- | --- |\n"
    )
    assert table.partition("\n\n")[0].splitlines() == rows()
