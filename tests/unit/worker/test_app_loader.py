"""Finding the app that MODULE:APP names."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from amqpworker import App
from amqpworker.errors import ConfigError
from amqpworker.worker.app_loader import load_app

APP = "from amqpworker import App\napp = App('amqp://localhost')\n"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Write modules into a folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    before = set(sys.modules)

    def write(name: str, source: str = APP) -> None:
        path = tmp_path / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_an_app_is_found_in_the_current_folder(module: Callable[..., None]) -> None:
    module("located_plain")
    assert isinstance(load_app("located_plain:app"), App)


LOADED = """
import sys
from importlib import import_module
from amqpworker.worker.app_loader import load_ours

import_module(sys.argv[1])
load_ours()
print(*sorted({name.partition(".")[0] for name in sys.modules} & sys.stdlib_module_names))
"""


@pytest.mark.parametrize(
    "names",
    [
        ("worker.process", "worker.isolation.program", "worker.dry_run"),
        ("scheduler.__main__", "scheduler.schedule_check"),
    ],
)
def test_processes_that_import_an_app_and_their_dry_run_load_the_same_standard_modules(names: tuple[str, ...]) -> None:
    commands = [[sys.executable, "-c", LOADED, f"amqpworker.{name}"] for name in names]
    loaded = {subprocess.run(one, capture_output=True, text=True, check=True).stdout for one in commands}
    assert len(loaded) == 1, loaded


def test_the_current_folder_is_first_on_sys_path(module: Callable[..., None], tmp_path: Path) -> None:
    module("located_first", "import located_second\n" + APP)
    module("located_second", "")
    load_app("located_first:app")
    assert sys.path[0] == str(tmp_path)


def test_a_current_folder_that_was_deleted_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match="The current folder cannot be read: No such file or directory"):
        load_app("located_gone:app")
    monkeypatch.chdir(tmp_path)


def test_an_app_can_be_an_attribute_of_a_class_in_a_package(module: Callable[..., None]) -> None:
    module("located_package/inner", APP + "class Holder:\n    inner = app\n")
    assert isinstance(load_app("located_package.inner:Holder.inner"), App)


def test_the_modules_that_hold_tasks_are_imported_too(module: Callable[..., None]) -> None:
    module("located_app", "from amqpworker import App\napp = App('amqp://localhost', modules=['located_tasks'])\n")
    module("located_tasks", "from located_app import app\n@app.task\ndef work() -> None: ...\n")
    assert list(load_app("located_app:app").tasks) == ["located_tasks.work"]


@pytest.mark.parametrize("target", ["shop", "shop:", ":app", "", ":"])
def test_a_target_in_another_form_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match="MODULE:APP"):
        load_app(target)


@pytest.mark.parametrize("target", ["shop/tasks.py:app", "./shop/tasks.py:app", "shop/tasks:app", "shop.tasks.py:app"])
def test_the_error_for_a_file_in_place_of_a_module_names_the_module(target: str) -> None:
    with pytest.raises(ConfigError, match=r"write its module, shop\.tasks:app\.$"):
        load_app(target)


@pytest.mark.parametrize("target", ["../tasks:app", "/srv/tasks.py:app", "shop/my-tasks.py:app"])
def test_a_file_that_cannot_be_a_module_in_the_current_folder_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match="go to its folder"):
        load_app(target)


@pytest.mark.parametrize(
    ("target", "packages", "told"),
    [
        (
            "src/shop/tasks.py:app",
            ["src/shop"],
            "found from the folder src: go there (or install the project), and write",
        ),
        ("src/shop/tasks.py:app", [], "found from the folder src: go there (or install the project), and write"),
        (
            "lib/shop/tasks.py:app",
            ["lib/shop"],
            "found from the folder lib: go there (or install the project), and write",
        ),
        ("shop/tasks.py:app", ["shop"], "write its module,"),
        ("shop/tasks.py:app", [], "write its module,"),
        ("{here}/shop/tasks.py:app", ["shop"], "write its module,"),
    ],
)
def test_the_error_for_a_file_names_the_module_by_which_its_tasks_are_known_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, packages: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for package in packages:
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / "tasks.py").touch()
    with pytest.raises(ConfigError) as caught:
        load_app(target.format(here=tmp_path))
    assert f"{told} shop.tasks:app." in str(caught.value)


def test_the_error_for_a_file_of_an_installed_project_names_its_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "src")])
    with pytest.raises(ConfigError, match=r"write its module, shop\.tasks:app\.$"):
        load_app("src/shop/tasks.py:app")


def test_the_error_for_a_file_of_the_package_in_the_current_folder_names_the_parent_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").touch()
    monkeypatch.chdir(tmp_path / "shop")
    with pytest.raises(ConfigError, match=rf"found from the folder {tmp_path}: go there .* write shop\.tasks:app\.$"):
        load_app("tasks.py:app")


@pytest.mark.parametrize("target", [".tasks:app", "shop..tasks:app", "shop.:app"])
def test_an_invalid_module_name_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a module"):
        load_app(target)


def test_a_folder_in_place_of_a_module_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "located_folder").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"is a folder: name a module in it, such as located_folder\.tasks:app"):
        load_app("located_folder:app")


def test_a_module_that_does_not_exist_is_named(module: Callable[..., None]) -> None:
    with pytest.raises(ConfigError, match="no module 'no_such_module'"):
        load_app("no_such_module:app")
    module("located_parent", APP)
    with pytest.raises(ConfigError, match=r"no module 'located_parent\.child'"):
        load_app("located_parent.child:app")


def test_a_failed_import_inside_a_module_is_reported_as_such(module: Callable[..., None]) -> None:
    module("located_lacking", "import no_such_library\n" + APP)
    with pytest.raises(ConfigError, match="cannot be imported: No module named 'no_such_library'"):
        load_app("located_lacking:app")


def test_a_missing_module_and_a_failed_import_inside_a_module_are_distinguished(module: Callable[..., None]) -> None:
    module("located_naming", "from amqpworker import App\napp = App('amqp://localhost', modules=['located_gone'])\n")
    with pytest.raises(ConfigError, match=r"^App\(modules=…\) names 'located_gone', which does not exist: check"):
        load_app("located_naming:app")
    module("located_gone", "import no_such_library\n")
    with pytest.raises(ConfigError, match=r"^Module 'located_gone' cannot be imported: No module named 'no_such_libra"):
        load_app("located_naming:app")
    module("located_gone", "def\n")
    with pytest.raises(ConfigError, match=r"^Module 'located_gone' cannot be imported: invalid syntax"):
        load_app("located_naming:app")


def test_a_module_with_a_syntax_error_is_refused_in_a_sentence(module: Callable[..., None]) -> None:
    module("located_broken", "def (:\n")
    with pytest.raises(ConfigError, match="located_broken"):
        load_app("located_broken:app")


def test_an_exception_in_the_module_is_raised_unchanged(module: Callable[..., None]) -> None:
    module("located_failing", "1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        load_app("located_failing:app")


def test_a_name_that_does_not_exist_or_is_not_an_app_is_refused(module: Callable[..., None]) -> None:
    module("located_named", APP + "other = 5\n")
    with pytest.raises(ConfigError, match="has no 'application'"):
        load_app("located_named:application")
    with pytest.raises(ConfigError, match="is of type int"):
        load_app("located_named:other")
