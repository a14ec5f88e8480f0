"""The code and the commands of the pages about frameworks, run as they are."""

from __future__ import annotations

import shlex
import signal
from pathlib import Path

import httpx
import pytest

from tests.cli import environment, started
from tests.docs import ROOT, blocks, commands
from tests.programs import Program
from tests.services.servers import serving
from tests.support import Broker, wait_until

pytestmark = pytest.mark.timeout(300)

PAGES = ROOT / "docs/integrations"


def write_files(page: Path, folder: Path) -> None:
    """Write the files of a page: a block names its file in the first line, and blocks of one file follow each other."""
    for block in blocks(page, "python"):
        name, _, code = block.partition("\n")
        with (folder / name.removeprefix("# ")).open("a") as file:
            file.write(code)


@pytest.mark.parametrize("page", ["fastapi", "flask"])
def test_the_service_of_a_page_sends_calls_is_ready_and_ends_in_good_order(
    page: str, broker: Broker, tmp_path: Path
) -> None:
    write_files(PAGES / f"{page}.md", tmp_path)
    worker, server = (shlex.split(command.line) for command in commands(PAGES / f"{page}.md"))
    program, service, *options = server
    bind = "--port {port}" if program == "uvicorn" else "--bind 127.0.0.1:{port}"
    command = shlex.join([program, *options]) + f" {bind}"
    log = tmp_path / "worker.log"
    with (
        log.open("w") as output,
        started(tmp_path, environment(broker.url), *worker[1:], stdout=output, stderr=output) as process,
        serving(command, service, tmp_path, broker.url) as running,
    ):
        wait_until(lambda: log.read_text().count("queue_consuming") == 2, 30, "the worker consumes")
        assert running.status("/ready") == 200
        assert httpx.get(f"{running.url}/prices/pen?pieces=3", timeout=30).json() == {"cents": 900}
        assert httpx.post(f"{running.url}/users/42/welcome?lang=fr", timeout=30).status_code == 202
        assert running.terminate() == (0, set())
        assert "Traceback" not in running.log, running.log
        process.send_signal(signal.SIGTERM)
        assert Program(process, log).end(40) == 0


@pytest.mark.parametrize("page", ["fastapi", "flask"])
def test_a_page_shows_the_endpoints_of_the_example(page: str) -> None:
    shown = "".join(blocks(PAGES / f"{page}.md", "python"))
    parts = (ROOT / f"examples/{page}_service.py").read_text().split("\n\n\n")
    endpoints = [part.strip() for part in parts if part.startswith("@")]
    assert len(endpoints) >= 5
    assert [part for part in endpoints if part not in shown] == []
