"""The pytest plugin of the installed wheel: found by its entry point, and turned off by its name."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.acceptance.scene import PYTHON

SHOP = """
from amqpworker import App

app = App("amqp://127.0.0.1:1/")

@app.task(queue="numbers")
def double(number: int) -> int:
    return 2 * number
"""

TEST = """
from shop import double

def test_it(amqp_inline):
    assert double.call(21) == 42
"""


def test_pytest_finds_the_plugin_and_can_do_without_it(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "test_shop.py").write_text(TEST)

    def output(*options: str) -> str:
        command = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        env["AMQPWORKER_APP"] = "shop:app"
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
        return done.stdout + done.stderr

    assert "1 passed" in output()
    assert "fixture 'amqp_inline' not found" in output("-p", "no:amqpworker")
