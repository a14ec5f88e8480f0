"""Apps, users and nodes, as the tests of sending and of faults have them."""

from __future__ import annotations

from tests.integration.conftest import app, make_app, stranger

__all__ = ["app", "make_app", "stranger"]
