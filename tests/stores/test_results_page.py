"""The snippets of docs/results.md, run as they are; its store of one's own is run by tests/unit/results/test_store.py."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amqpworker import App
from amqpworker.model.progress import Progress
from amqpworker.results import ResultRow
from tests.cli import environment
from tests.docs import ROOT, blocks
from tests.stores.postgres_server import PostgresServer
from tests.stores.redis_server import RedisServer
from tests.support import Broker
from tests.workers import running

PAGE = ROOT / "docs/results.md"
REPORT = b'{"status": "done", "value": 42}'


def block(language: str, beginning: str) -> str:
    """Return the one snippet that begins so."""
    (found,) = [one for one in blocks(PAGE, language) if one.startswith(beginning)]
    return found


def test_the_stores_of_the_page_are_what_their_urls_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    stores = []

    def made(results: str) -> App:
        app = App("amqp://127.0.0.1:1/", results=results)
        stores.append(type(app.store()).__name__)
        return app

    for code in blocks(PAGE, "python"):
        if code.startswith("app = App("):
            exec(code, {"App": made})
    assert stores == ["SqliteStore", "SqliteStore", "PostgresStore", "RedisStore", "RedisStore"]


def test_the_extras_of_the_page_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for code in blocks(PAGE, "sh"):
        for line in code.splitlines():
            if line.startswith("pip install"):
                assert line.partition("[")[2].partition("]")[0] in extras


def test_the_task_of_the_page_reports_and_its_results_are_gathered(
    vhost: Broker,
    make_app: Callable[..., App],
    postgres: PostgresServer,
    database: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    app, saved = make_app(results=postgres.url(database)), list[str]()

    @app.task(name="resize", queue="work")
    def resize(image: str) -> str:
        return image.upper()

    scope: dict[str, Any] = {"__name__": "page", "app": app, "read": str.split, "save": saved.append}
    exec(block("python", "from amqpworker import current"), scope)
    with running(app, threads=2):
        sent = scope["import_rows"].send("a b c")
        assert (sent.result(timeout=20), saved) == (3, ["a", "b", "c"])
        assert sent.status().progress == Progress(3, 3, "importing")
        exec(
            block("python", "from amqpworker import as_completed"), {"app": app, "resize": resize, "images": ["a", "b"]}
        )
    assert sorted(line.split()[1] for line in capsys.readouterr().out.splitlines()) == ["A", "B"]


@pytest.fixture
def project(tmp_path: Path, postgres: PostgresServer, database: str) -> dict[str, str]:
    """The module `shop.tasks` in the present folder of commands, and their environment."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/tasks.py").write_text(
        "import os\nfrom amqpworker import App\n\napp = App(results=os.environ['SHOP_RESULTS'])\n"
    )
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return environment("amqp://127.0.0.1:1/", SHOP_RESULTS=postgres.url(database), PATH=programs, PWD=str(tmp_path))


def run(line: str, project: dict[str, str], **variables: str) -> str:
    """Run a command of the page, and return what it has printed."""
    done = subprocess.run(
        ["bash", "-ec", f"set -o pipefail; {line}"],
        env={**project, **variables},
        cwd=project["PWD"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_the_table_can_be_made_by_hand_and_read_by_sql(
    project: dict[str, str], postgres: PostgresServer, database: str
) -> None:
    init, show_sql = block("sh", "amqpworker results init").splitlines()
    run(show_sql, project, OWNER_URL=postgres.url(database))
    run(init, project)
    postgres.execute("CREATE ROLE shop LOGIN")
    postgres.execute(block("sql", "GRANT"), database)
    now = time.time()
    with App("amqp://127.0.0.1:1/", results=postgres.url(database, "shop")) as app:
        store = app.store()
        assert store is not None
        row = ResultRow("report-7", "done", "shop.tasks.report", REPORT, "", now, now + 60)
        assert (
            store.put([row, row._replace(id="report-8", state="failed"), row._replace(id="report-9", expires_at=now)])
            == {}
        )
        found = postgres.execute(block("sql", "SELECT"), database)
        assert sorted((task_id, state, value) for task_id, state, _, value in found) == [
            ("report-7", "done", 42),
            ("report-9", "done", 42),
        ]
        show, delete, expire = block("sh", "amqpworker results show report-7").splitlines()
        assert "42" in run(show, project)
        run(f"{delete} --yes", project)  # there is no terminal to ask
        assert set(store.get(["report-7", "report-8", "report-9"])) == {"report-9"}
        run(expire, project)
        assert store.get(["report-9"]) == {}
    postgres.execute("DROP OWNED BY shop", database)
    postgres.execute("DROP ROLE shop")


def test_a_user_of_redis_with_the_permissions_of_the_page_stores_rows_of_its_format(
    make_redis: Callable[..., RedisServer],
) -> None:
    server = make_redis()
    server.command(*block("text", "ACL SETUSER").split())
    with App("amqp://127.0.0.1:1/", results=f"redis://shop:secret@127.0.0.1:{server.port}/0") as app:
        store = app.store()
        assert store is not None
        assert store.check_writable() is None
        row = ResultRow("4f9c", "done", "shop.price", REPORT, "2026-11-23T10:00:00.000Z", 1795514400.25, 4e9, 1, "w")
        assert store.put([row]) == {}
    command, versions, members, reply = block("text", "> GET").splitlines()
    stored = server.command("GET", command.split(":result:")[0].removeprefix("> GET ") + ":result:4f9c")
    assert isinstance(stored, bytes)
    first, second, third = stored.decode().split("\n")
    assert (first, third.replace(" ", "")) == (versions, reply)
    assert second.startswith(members.partition('"expires_at"')[0])
