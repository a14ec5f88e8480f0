"""A worker with results in PostgreSQL, against a real broker: what only PostgreSQL does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cli import environment
from tests.stores.postgres_server import PostgresServer
from tests.support import Broker


def test_a_worker_without_the_table_that_it_may_not_create_does_not_start(
    vhost: Broker, postgres: PostgresServer, database: str, tmp_path: Path
) -> None:
    app = f"App({vhost.url!r}, results={postgres.url(database)!r})"
    (tmp_path / "bareshop.py").write_text(f"from amqpworker import App\napp = {app}\n@app.task\ndef nothing(): ...\n")
    command = [sys.executable, "-m", "amqpworker", "worker", "bareshop:app"]
    chosen = environment(AMQPWORKER_DECLARE="0")
    ended = subprocess.run(command, cwd=tmp_path, env=chosen, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "run `amqpworker results init`" in ended.stderr
