"""Apps and users on the test's virtual host, as the tests of sending and working have them."""

from __future__ import annotations

from tests.integration.conftest import app, client, make_app, make_client, stranger

__all__ = ["app", "client", "make_app", "make_client", "stranger"]
