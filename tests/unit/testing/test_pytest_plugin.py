"""The pytest plugin: which app it takes, what its fixtures refuse, and what it loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from amqpworker.testing import external_broker, inline, moved_app, node, workers
from amqpworker.worker.app_loader import load_ours
from tests.plugin import OPTIONS, run_pytest

# Loaded before: each run in this process forgets the modules that it has imported, and would load parts of ours twice.
LOADED = (external_broker, inline, moved_app, node, workers)
load_ours()

pytest_plugins = ["pytester"]

SHOP = """
from amqpworker import App

app = App("amqp://127.0.0.1:1/", results="sqlite:///shop.db")

@app.task(name="double", queue="numbers")
def double(number: int) -> int:
    return 2 * number
"""

INI = "[pytest]\namqpworker_app = shop:app\n"

TEST = """
def test_it(amqp_inline):
    from shop import double
    assert double.send(21).result() == 42
    assert [message.arguments for message in amqp_inline.sent(double, number=21)] == [{"number": 21}]
"""


@pytest.fixture
def folder(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PWD", str(pytester.path))
    pytester.makepyfile(shop=SHOP)
    return pytester


def test_the_app_is_named_once_in_the_configuration(folder: pytest.Pytester) -> None:
    folder.makeini(INI)
    folder.makepyfile(TEST)
    folder.runpytest_inprocess(*OPTIONS).assert_outcomes(passed=1)


def test_the_variable_has_priority(folder: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.makeini("[pytest]\namqpworker_app = elsewhere:app\n")
    folder.makepyfile(TEST)
    monkeypatch.setenv("AMQPWORKER_APP", "shop:app")
    folder.runpytest_inprocess(*OPTIONS).assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("ini", "reason"),
    [
        (
            "[pytest]\n",
            "These tests do not know the app: name it as MODULE:APP, such as amqpworker_app = shop.tasks:app",
        ),
        ("[pytest]\namqpworker_app = shop\n", "'shop' does not name an app: write MODULE:APP, such as shop.tasks:app."),
        ("[pytest]\namqpworker_app = shop:ap\n", "Module 'shop' has no 'ap': does its app have another name?"),
        ("[pytest]\namqpworker_app = shopp:app\n", "There is no module 'shopp'"),
    ],
)
def test_an_app_that_is_not_named_or_not_found_is_one_line(folder: pytest.Pytester, ini: str, reason: str) -> None:
    folder.makeini(ini)
    folder.makepyfile(TEST)
    done = folder.runpytest_inprocess(*OPTIONS)
    done.assert_outcomes(errors=1)
    (line,) = [line for line in done.outlines if reason in line and not line.startswith("ERROR")]
    assert "Traceback" not in done.stdout.str()
    assert "pytest_plugin.py" not in done.stdout.str()
    assert line.startswith(("These tests", "The app of these tests (amqpworker_app or AMQPWORKER_APP): "))


@pytest.mark.parametrize(
    ("marker", "reason"),
    [
        ("amqp_inline(eagre=False)", "the marker takes only eager=True or eager=False"),
        ("amqp_inline(False)", "the marker takes only eager=True or eager=False"),
        ("amqp_inline(eager=0)", "the marker takes only eager=True or eager=False"),
    ],
)
def test_a_marker_with_other_arguments_ends_pytest(folder: pytest.Pytester, marker: str, reason: str) -> None:
    folder.makeini(INI)
    folder.makepyfile(f"import pytest\n@pytest.mark.{marker}\ndef test_it(amqp_inline): ...\n")
    done = folder.runpytest_inprocess(*OPTIONS)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([f"ERROR: *::test_it: @pytest.mark.{marker}: {reason}."])


def test_a_marker_without_the_fixture_ends_pytest(folder: pytest.Pytester) -> None:
    folder.makepyfile("import pytest\n@pytest.mark.amqp_inline(eager=False)\ndef test_it(): ...\n")
    done = folder.runpytest_inprocess(*OPTIONS)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: *is for tests with the fixture amqp_inline."])


def test_the_marker_makes_messages_wait(folder: pytest.Pytester) -> None:
    folder.makeini(f"{INI}addopts = --strict-markers\n")
    folder.makepyfile("""
        import pytest
        from shop import double

        @pytest.mark.amqp_inline(eager=False)
        def test_it(amqp_inline):
            sent = double.send(21)
            assert amqp_inline.run() == 1
            assert sent.result() == 42
    """)
    folder.runpytest_inprocess(*OPTIONS).assert_outcomes(passed=1)


def test_a_test_is_inline_or_on_a_broker(folder: pytest.Pytester) -> None:
    folder.makeini(INI)
    folder.makepyfile("""
        import pytest

        @pytest.fixture(scope="session")
        def amqp_node():
            return None  # not reached

        def test_it(amqp_inline, amqp_app): ...
    """)
    done = folder.runpytest_inprocess(*OPTIONS)
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["A test uses amqp_inline, without a broker, or amqp_app, with one: not both."])


def test_a_management_api_without_a_broker_is_an_error(
    folder: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.makeini(INI)
    folder.makepyfile("def test_it(amqp_app): ...")
    monkeypatch.setenv("AMQPWORKER_MANAGEMENT", "http://127.0.0.1:1/")
    done = folder.runpytest_inprocess(*OPTIONS)
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["AMQPWORKER_MANAGEMENT is set, and AMQPWORKER_URL is not: set both, or neither."])


def test_a_broker_that_cannot_be_reached_is_one_line(folder: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.makeini(INI)
    folder.makepyfile("def test_it(amqp_worker): ...")
    monkeypatch.setenv("AMQPWORKER_URL", "amqp://127.0.0.1:1/")
    monkeypatch.setenv("AMQPWORKER_MANAGEMENT", "http://127.0.0.1:1/")
    done = folder.runpytest_inprocess(*OPTIONS)
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["amqp_app: Connection refused by http://127.0.0.1:1*"])
    assert "Traceback" not in done.stdout.str()


def test_pytest_starts_without_the_app_and_with_little_of_ours(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(INI)
    (tmp_path / "shop.py").write_text("raise SystemExit('imported')")
    (tmp_path / "test_it.py").write_text("""
import sys

def test_it():
    ours = sorted(name for name in sys.modules if name.partition(".")[0] == "amqpworker")
    assert ours == ["amqpworker", "amqpworker.testing", "amqpworker.testing.pytest_plugin"]
    assert not {"shop", "pika", "pydantic"} & set(sys.modules)
""")
    done = run_pytest(tmp_path, "-q", "-p", "no:hypothesispytest")
    assert "1 passed" in done.stdout, done.stdout
