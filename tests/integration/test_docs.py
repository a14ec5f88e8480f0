"""The README's first steps and the examples, run as they are."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.docs import ROOT, Command, blocks, commands
from tests.support import Broker, wait_until

README = ROOT / "README.md"
BROKER = ("amqpworker broker start", "export AMQPWORKER_URL=$(amqpworker broker url)")


class Shell:
    """Runs lines of the README in a folder, with the program of this Python before all others in the PATH."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.env = {**os.environ, "PATH": path, "AMQPWORKER_URL": url}

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            line, shell=True, cwd=self.folder, env=self.env, text=True, capture_output=True, timeout=60, check=False
        )

    @contextmanager
    def worker(self, line: str) -> Iterator[None]:
        """Run a worker for the time of a block; it must stop in good order."""
        log = self.folder / "worker.log"
        with log.open("wb") as out:
            pool = subprocess.Popen(shlex.split(line), cwd=self.folder, env=self.env, stdout=out, stderr=out)
        try:
            wait_until(lambda: "queue_consuming" in log.read_text(), timeout=30, what=f"{line} consumes")
            yield
        finally:
            pool.send_signal(signal.SIGTERM)
            code = pool.wait(timeout=40)
        assert code == 0, log.read_text()


def apps(page: Path) -> list[tuple[str, list[Command]]]:
    """Return each worker of a page, with the commands that follow until the next one."""
    found: list[tuple[str, list[Command]]] = []
    for command in commands(page):
        if command.line.startswith("amqpworker worker "):
            found.append((command.line, []))
        elif command.line not in BROKER:
            found[-1][1].append(command)
    return found


def test_the_readme_shows_how_to_get_a_broker_before_anything_else() -> None:
    assert tuple(command.line for command in commands(README))[:2] == BROKER


@pytest.mark.parametrize(("worker", "then"), apps(README), ids=lambda it: it if isinstance(it, str) else "")
def test_the_first_steps_of_the_readme_print_what_it_shows(
    tmp_path: Path, vhost: Broker, worker: str, then: list[Command]
) -> None:
    for block in blocks(README, "python"):
        name = block.partition("\n")[0].removeprefix("# ")
        (tmp_path / name).write_text(block)
    shell = Shell(tmp_path, vhost.url)
    assert then
    with shell.worker(worker):
        for command in then:
            done = shell.run(command.line)
            assert (done.returncode, done.stderr) == (0, ""), command.line
            assert command.prints(done.stdout), f"{command.line} printed {done.stdout!r}, not {command.output!r}"


def example_shell(vhost: Broker) -> Shell:
    return Shell(ROOT, vhost.url)


def test_the_example_of_many_rows_sends_them_all(vhost: Broker) -> None:
    done = example_shell(vhost).run("python -m examples.many 3000")
    assert (done.stdout, done.stderr) == ("3000 rows sent, 0 of them at the second attempt\n", "")
    assert vhost.count("rows") == 3000


SERVICES = {
    "flask": "from examples.flask_service import service; client = service.test_client()",
    "fastapi": "from fastapi.testclient import TestClient; from examples.fastapi_service import service;"
    "client = TestClient(service)",
}
ASKED = (
    "for path in ({}): print(client.post(path).status_code if 'users' in path else client.get(path).status_code)\n"
    "from examples.tasks import app; app.close()\n"
)


def statuses(shell: Shell, framework: str, *paths: str) -> str:
    """Return what an example service answers."""
    code = f"{SERVICES[framework]}\n{ASKED.format(''.join(f'{path!r}, ' for path in paths))}"
    done = shell.run(f"python -c {shlex.quote(code)}")
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("framework", "path", "status"),
    [
        ("flask", "/prices/pen?pieces=abc", "400"),
        ("flask", f"/users/42/welcome?lang={'x' * 99}", "400"),
        ("fastapi", "/users/x/welcome", "422"),
    ],
    ids=["not a number", "too large a message", "not a number either"],
)
def test_an_example_service_answers_with_what_became_of_the_request(
    vhost: Broker, framework: str, path: str, status: str
) -> None:
    shell = example_shell(vhost)
    shell.env.update(AMQPWORKER_CALL_TIMEOUT="0.5", AMQPWORKER_MAX_BODY="99")
    paths = ("/users/42/welcome", path, "/prices/pen", "/ready")
    assert statuses(shell, framework, *paths).split() == ["202", status, "504", "200"]
    assert vhost.count("examples.welcomes") == 1


@pytest.mark.parametrize("framework", SERVICES)
def test_an_example_service_without_its_broker_answers_503_within_its_time(framework: str) -> None:
    shell = Shell(ROOT, "amqp://127.0.0.1:1/")
    shell.env["AMQPWORKER_SEND_TIMEOUT"] = "0.5"
    paths = ("/users/42/welcome", "/prices/pen", "/ready")
    assert statuses(shell, framework, *paths).split() == ["503", "503", "503"]


def test_the_example_policies_retry_as_they_promise(vhost: Broker) -> None:
    shell = example_shell(vhost)
    called = "amqpworker call examples.policies.{} --app examples.policies:app --timeout 20"
    pool = subprocess.Popen(
        [sys.executable, "-m", "amqpworker", "worker", "examples.policies:app", "-p", "1"],
        cwd=ROOT,
        env=shell.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert shell.run(called.format("poll")).stdout == "3\n"
        refused = shell.run(called.format("fetch url=http://localhost/"))
        assert (refused.returncode, "only https" in refused.stderr) == (1, True)
    finally:
        pool.send_signal(signal.SIGTERM)
        assert pool.wait(timeout=40) == 0


def published(vhost: Broker, exchange: str, **properties: Any) -> bool:
    """Publish what the UI's form publishes: a routing key, a few properties, a body."""
    return vhost.management.publish(vhost.vhost, exchange, "emails", '{"user_id": 42}', properties)


def test_a_message_made_by_hand_runs_now_or_after_its_delay(tmp_path: Path, vhost: Broker) -> None:
    (tmp_path / "shop.py").write_text(blocks(README, "python")[0])
    shell = Shell(tmp_path, vhost.url)
    with shell.worker("amqpworker worker shop:app -p 1"):
        assert published(vhost, "amqpworker.tasks", type="shop.send_welcome", message_id="now")
        assert published(
            vhost,
            "amqpworker.delay.03",
            type="shop.send_welcome",
            message_id="later",
            headers={"aw-wait-03": 1},
        )
        look = "python -c 'from shop import app; s = app.store(); print(s.get([\"{}\"]))'"
        told = "user 42 was welcomed in en"
        for name in ("now", "later"):
            wait_until(lambda name=name: told in shell.run(look.format(name)).stdout, what=f"the result of {name}")


TYPED = """
from typing import assert_type
from collections.abc import Coroutine
from typing import Any
from amqpworker import App, Sent

app = App()

@app.task
def plain(number: int, text: str = "") -> str: return text

@app.task(queue="q", retry=3)
async def awaited(number: int) -> list[float]: return [1.0]

assert_type(plain(1), str)
assert_type(plain.send(1, text="a"), Sent[str])
assert_type(plain.options(timeout=1).call(1), str)
assert_type(awaited.options(delay=1).send(1).result(), list[float])
coroutine: Coroutine[Any, Any, list[float]] = awaited(1)
plain.send("x")  # type: ignore[arg-type]
plain.send()  # type: ignore[call-arg]
plain.options(delay=1).call(1)  # type: ignore[attr-defined]
"""


def test_tasks_and_the_examples_hold_for_a_strict_type_checker(tmp_path: Path) -> None:
    typed = tmp_path / "typed.py"
    typed.write_text(TYPED)
    for what in ([str(typed)], ["-p", "examples"]):
        command = [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", *what]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
