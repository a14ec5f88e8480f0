"""A broker that runs already, for tests: AMQPWORKER_URL is where it is, AMQPWORKER_MANAGEMENT its management API."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit, urlunsplit

from amqpworker.broker.management import Management


class ExternalBroker:
    """
    Has the methods of a `Node` that the fixtures use; it is neither started nor stopped.

    If the management URL has no login, that of the AMQP URL is used. Of several AMQP URLs the first one counts.
    """

    def __init__(self, url: str, management_url: str) -> None:
        self._url = urlsplit(url.split(",", maxsplit=1)[0])
        api = urlsplit(management_url)
        self.user = unquote(self._url.username or "guest")
        user = unquote(api.username) if api.username else self.user
        password = unquote((api.password if api.username else self._url.password) or "guest")
        self.management_url = urlunsplit(api._replace(netloc=api.netloc.rpartition("@")[2]))
        self.management = Management(self.management_url, user, password)

    def url(self, vhost: str = "/") -> str:
        """Return the AMQP URL of a virtual host."""
        return urlunsplit(self._url._replace(path=f"/{quote(vhost, safe='')}"))

    def create_vhost(self, name: str) -> None:
        """Create a virtual host that the user of the AMQP URL may use; raises ConfigError if that is not possible."""
        self.management.request("PUT", "vhosts", name, body={})
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        self.management.request("PUT", "permissions", name, self.user, body=everything)

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host."""
        self.management.request("DELETE", "vhosts", name)
