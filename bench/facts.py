"""What the figures depend on: date, machine, versions."""

from __future__ import annotations

import os
import platform
import re
import sqlite3
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from bench.broker import Broker
from bench.places import OWN_PYTHON, PEER_PYTHON

OURS = ("amqpworker", "pika", "aio-pika", "aiormq", "pydantic", "tenacity", "structlog", "psycopg", "redis")
PEERS = ("celery", "kombu", "dramatiq", "taskiq", "taskiq-aio-pika", "faststream", "aio-pika", "pika")
PEERS_STORES = ("redis", "SQLAlchemy", "psycopg2-binary")
PSQL, REDIS = ["psql", "--version"], ["redis-server", "--version"]
VERSIONS = "import sys, importlib.metadata as m; print(', '.join(f'{n} {m.version(n)}' for n in sys.argv[1:]))"


def facts(broker: Broker, runs: int, scale: float) -> dict[str, str]:
    """Return what a reader of the results has to know."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "runs": f"{runs} of each side, in turn; medians; message counts × {scale:g}",
        "machine": f"{os.cpu_count()} cores, {_processor()}, shared by the broker and all sides",
        "load before": f"{os.getloadavg()[0]:.1f}",
        "system": f"{_system()}, Linux {platform.release()}, Python {platform.python_version()}",
        "broker": broker.versions(),
        "stores": f"SQLite {sqlite3.sqlite_version}, PostgreSQL {_version(PSQL)}, Redis {_version(REDIS)}",
        "ours": _printed([OWN_PYTHON, "-c", VERSIONS, *OURS]),
        "peers": _printed([PEER_PYTHON, "-c", VERSIONS, *PEERS, *PEERS_STORES]),
        "Go": f"{_go()}, amqp091-go {_debian('golang-github-rabbitmq-amqp091-go-dev')}",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _system() -> str:
    return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")


def _go() -> str:
    return " ".join(_printed(["go", "version"]).split()[2:3])


def _debian(package: str) -> str:
    return _printed(["dpkg-query", "-W", "-f", "${Version}", package])


def _version(command: list[str]) -> str:
    found = re.search(r"\d+(\.\d+)+", _printed(command))
    return found[0] if found else "?"


def _printed(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "?"
