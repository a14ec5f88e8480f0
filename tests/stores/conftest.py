"""The databases that hold results in these tests: private servers, tied to the test process; and apps on a broker."""

from __future__ import annotations

from tests.integration.conftest import make_app
from tests.stores.postgres_server import database, pgbouncer, postgres

__all__ = ["database", "make_app", "pgbouncer", "postgres"]
