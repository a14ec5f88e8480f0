"""The databases that hold results in these tests: private servers, tied to the test process."""

from __future__ import annotations

from tests.stores.postgres_server import database, pgbouncer, postgres

__all__ = ["database", "pgbouncer", "postgres"]
