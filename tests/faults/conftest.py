"""Apps on the test's virtual host, as the tests of sending and working have them."""

from tests.integration.conftest import app, make_app, make_client

__all__ = ["app", "make_app", "make_client"]
