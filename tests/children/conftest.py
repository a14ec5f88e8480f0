"""Apps on the test's virtual host, as the tests of sending and working have them."""

from tests.integration.conftest import app, codec, make_app, one_app

__all__ = ["app", "codec", "make_app", "one_app"]
