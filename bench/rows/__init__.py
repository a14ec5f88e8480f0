"""The rows of the table, one file each, in the table's order."""

from __future__ import annotations

import importlib

from bench.row import Row

ORDER = (
    "empty",
    "go",
    "mixed",
    "defaults",
    "raw",
    "sleep",
    "retry",
    "send_one",
    "send_threads",
    "send_many",
    "call",
    "ladder",
    "steady",
    "behind",
    "start",
    "asend",
    "asend_one",
    "asend_loops",
    "acall",
    "idle",
    "recorder",
    "auto",
    "late_joiner",
    "killed",
    "reload",
    "soft_limit",
    "hard_limit",
    "isolated",
    "forgotten",
    "frozen",
    "days",
    "takeover",
    "broker_back",
    "node_lost",
    "many_schedules",
    "pending",
    "pending_million",
    "dead_letters",
    "stored",
    "tracked",
    "awaited",
    "idle_waits",
    "inline",
)
COROUTINES = "Coroutines"
"""The section of the rows about sending and calling in event loops."""
POOLS = "Pools"
"""The section of the rows about a supervisor and its processes."""
SCHEDULES = "Schedules"
"""The section of the rows about schedulers."""
OPERATING = "Operating"
"""The section of the rows about what operators do: list what waits, and replay dead letters."""
RESULTS = "Results"
"""The section of the rows about stored results, and about tests without a broker."""
SECTIONS = (COROUTINES, POOLS, SCHEDULES, OPERATING, RESULTS)
WITHOUT_PEERS = (POOLS, SCHEDULES, OPERATING)
"""The sections in which nothing is compared with other libraries."""


def load() -> list[Row]:
    """Return all rows."""
    return [importlib.import_module(f"bench.rows.{name}").ROW for name in ORDER]
