"""The broker's HTTP API, as far as `amqpworker topology check` needs it: plain dictionaries as the broker sends them."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote

from amqpworker.errors import ConfigError

NO_API = "The server at {url} is not RabbitMQ's management API: check host, port (usually 15672) and path"


class Management:
    """The HTTP API of one node; every method raises ConfigError, with the broker's text or why there is no response."""

    def __init__(self, url: str, user: str = "guest", password: str = "guest") -> None:  # noqa: S107
        self.url = url.rstrip("/")
        self.user = user
        self._authorization = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        # The broker is in the local network: an HTTP proxy of the environment is not used.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def request(self, method: str, *path: str, body: Any = None, timeout: float = 30.0) -> Any:
        """Call `/api/…`, each part of the path quoted, and return the decoded response, or `None` for an empty one."""
        url = f"{self.url}/api/" + "/".join(quote(part, safe="") for part in path)
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": self._authorization, "Content-Type": "application/json"}
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 our own http URL
        try:
            with self._opener.open(request, timeout=timeout) as response:
                content = response.read()
            return json.loads(content) if content else None
        except urllib.error.HTTPError as error:
            with error:
                content = error.read()
            raise ConfigError(self._error_text(f"{method} /api/{'/'.join(path)}", error.code, content)) from error
        except (OSError, http.client.HTTPException) as error:
            raise ConfigError(_no_response(self.url, error, timeout)) from error
        except UnicodeError as error:  # an impossible host name, or a response that is not text
            raise ConfigError(f"{NO_API.format(url=self.url)} ({error}).") from error
        except ValueError as error:
            raise ConfigError(f"{NO_API.format(url=self.url)}.") from error

    def _error_text(self, request: str, code: int, content: bytes) -> str:
        try:
            response = json.loads(content)
            words = f"{response['error']}: {response['reason']}"
        except (ValueError, TypeError, KeyError):
            words = ""
        if code == http.client.UNAUTHORIZED:
            return (
                f"The management API at {self.url} refused the login of user {self.user!r}{words and f' ({words})'}: it "
                f"requires the correct password, the tag `management` and a permission in the virtual host. To log in as "
                f"another user, write USER:PASSWORD@ before the host in the URL."
            )
        if words or code >= http.client.INTERNAL_SERVER_ERROR:
            return f"The management API at {self.url} responded to {request} with HTTP {code} {words}".rstrip() + "."
        return f"{NO_API.format(url=self.url)} (HTTP {code})."

    def _list(self, *path: str) -> list[dict[str, Any]]:
        found = self.request("GET", *path)
        if not isinstance(found, list):
            raise ConfigError(f"{NO_API.format(url=self.url)}.")
        return found

    def nodes(self) -> list[dict[str, Any]]:
        """Return the nodes of the cluster; this requires the tag `monitoring`."""
        return self._list("nodes")

    def queues(self, vhost: str) -> list[dict[str, Any]]:
        """Return all queues of a virtual host."""
        return self._list("queues", vhost)

    def bindings(self, vhost: str) -> list[dict[str, Any]]:
        """Return all bindings of a virtual host."""
        return self._list("bindings", vhost)


def _no_response(url: str, error: OSError | http.client.HTTPException, timeout: float) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    match cause:
        case ConnectionRefusedError():
            return (
                f"Connection refused by {url}: is the port correct (usually 15672), and is the management plugin enabled "
                f"(rabbitmq-plugins enable rabbitmq_management)?"
            )
        case socket.gaierror():
            return f"The host name in {url} cannot be resolved: {cause.strerror}."
        case ssl.SSLCertVerificationError():
            return f"The certificate of {url} is not trusted: {cause.verify_message}."
        case ssl.SSLError():
            return f"The server at {url} does not speak TLS ({cause.reason}): should the URL begin with http://?"
        case http.client.InvalidURL():
            return f"The management URL {url} cannot be read: {cause}."
        case TimeoutError():
            return f"The management API at {url} did not respond within {timeout:g} s."
        case ConnectionResetError() | http.client.HTTPException():
            return (
                f"The server at {url} does not speak HTTP: 5672 is the port of AMQP, the management API's is usually 15672; "
                f"with TLS the URL begins with https://."
            )
    return f"The management API at {url} cannot be reached: {cause}."
