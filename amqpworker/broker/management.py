"""
The broker's HTTP API, as far as tests, the demo and `amqpworker topology check` need it.

A thin layer over `urllib`: one method a call, plain dictionaries as the broker sends them. Figures that the broker
gathers every few seconds (message counts, connections) are as old as that; nothing here waits for them.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from amqpworker.errors import ConfigError

NO_API = "What answers at {url} is not RabbitMQ's management API: check host, port (15672 as a rule) and path"


class Management:
    """
    The HTTP API of one node.

    Raises:
        ConfigError: from every method, with the broker's own words or why there is no answer; never the password.
    """

    def __init__(self, url: str, user: str = "guest", password: str = "guest") -> None:  # noqa: S107
        self.url = url.rstrip("/")
        self.user = user
        self._authorization = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        # A broker is near; the machine's proxy is for what is far.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def request(self, method: str, *path: str, body: Any = None, timeout: float = 30.0) -> Any:
        """Call `/api/…`, each part of the path quoted, and return the decoded answer, or `None` for an empty one."""
        url = f"{self.url}/api/" + "/".join(quote(part, safe="") for part in path)
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": self._authorization, "Content-Type": "application/json"}
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 our own http URL
        try:
            with self._opener.open(request, timeout=timeout) as answer:
                content = answer.read()
            return json.loads(content) if content else None
        except urllib.error.HTTPError as error:
            with error:
                told = error.read()
            raise ConfigError(self._refused(f"{method} /api/{'/'.join(path)}", error.code, told)) from error
        except (OSError, http.client.HTTPException) as error:
            raise ConfigError(no_answer(self.url, error, timeout)) from error
        except UnicodeError as error:  # a host's name that no resolver is asked for; also an answer that is no text
            raise ConfigError(f"{NO_API.format(url=self.url)} ({error}).") from error
        except ValueError as error:
            raise ConfigError(f"{NO_API.format(url=self.url)}.") from error

    def _refused(self, asked: str, code: int, told: bytes) -> str:
        """Return what an answer means that is no success."""
        try:
            answer = json.loads(told)
            words = f"{answer['error']}: {answer['reason']}"
        except (ValueError, TypeError, KeyError):
            words = ""
        if code == http.client.UNAUTHORIZED:
            return (
                f"The management API at {self.url} refused the login of user {self.user!r}{words and f' ({words})'}: it "
                f"takes the right password, the tag `management` and a right in the virtual host. Another login goes "
                f"into the URL, as USER:PASSWORD@ before the host."
            )
        if words or code >= http.client.INTERNAL_SERVER_ERROR:
            return f"The management API at {self.url} answered {asked} with HTTP {code} {words}".rstrip() + "."
        return f"{NO_API.format(url=self.url)} (HTTP {code})."

    def _list(self, *path: str) -> list[dict[str, Any]]:
        """Return the API's list of something."""
        found = self.request("GET", *path)
        if not isinstance(found, list):
            raise ConfigError(f"{NO_API.format(url=self.url)}.")
        return found

    def overview(self) -> dict[str, Any]:
        """Return the node's name, version and listeners, among much else."""
        result: dict[str, Any] = self.request("GET", "overview", timeout=5.0)
        return result

    def create_vhost(self, name: str) -> None:
        """Create a virtual host; the user that creates it may do everything in it."""
        self.request("PUT", "vhosts", name, body={})

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all that is in it; its connections are closed."""
        self.request("DELETE", "vhosts", name, timeout=60.0)

    def create_user(self, name: str, password: str, tags: str = "") -> None:
        """Create a user, or change its password and tags."""
        self.request("PUT", "users", name, body={"password": password, "tags": tags})

    def delete_user(self, name: str) -> None:
        """Delete a user."""
        self.request("DELETE", "users", name)

    def set_permissions(
        self, vhost: str, user: str, configure: str = ".*", write: str = ".*", read: str = ".*"
    ) -> None:
        """Set what a user may do in a virtual host: three regular expressions over the names of things."""
        body = {"configure": configure, "write": write, "read": read}
        self.request("PUT", "permissions", vhost, user, body=body)

    def set_policy(self, vhost: str, name: str, pattern: str, definition: Mapping[str, Any]) -> None:
        """Set a policy for the queues and exchanges whose name matches the pattern."""
        body = {"pattern": pattern, "definition": dict(definition), "apply-to": "all"}
        self.request("PUT", "policies", vhost, name, body=body)

    def nodes(self) -> list[dict[str, Any]]:
        """Return the nodes of the cluster; that takes the tag `monitoring`."""
        return self._list("nodes")

    def queues(self, vhost: str) -> list[dict[str, Any]]:
        """Return all queues of a virtual host."""
        return self._list("queues", vhost)

    def queue(self, vhost: str, name: str) -> dict[str, Any]:
        """Return one queue."""
        result: dict[str, Any] = self.request("GET", "queues", vhost, name)
        return result

    def exchanges(self, vhost: str) -> list[dict[str, Any]]:
        """Return all exchanges of a virtual host, the broker's own included."""
        return self._list("exchanges", vhost)

    def bindings(self, vhost: str) -> list[dict[str, Any]]:
        """Return all bindings of a virtual host."""
        return self._list("bindings", vhost)

    def declare_queue(self, vhost: str, name: str, arguments: Mapping[str, Any] | None = None) -> None:
        """Declare a durable queue."""
        self.request("PUT", "queues", vhost, name, body={"durable": True, "arguments": dict(arguments or {})})

    def delete_queue(self, vhost: str, name: str) -> None:
        """Delete a queue with its messages."""
        self.request("DELETE", "queues", vhost, name)

    def purge_queue(self, vhost: str, name: str) -> None:
        """Drop the messages that are ready in a queue."""
        self.request("DELETE", "queues", vhost, name, "contents")

    def publish(
        self, vhost: str, exchange: str, routing_key: str, body: str, properties: Mapping[str, Any] | None = None
    ) -> bool:
        """Publish as the UI's form does, and tell whether a queue took the message."""
        message = {
            "routing_key": routing_key,
            "payload": body,
            "payload_encoding": "string",
            "properties": dict(properties or {}),
        }
        answer = self.request("POST", "exchanges", vhost, exchange or "amq.default", "publish", body=message)
        return bool(answer["routed"])

    def get(self, vhost: str, queue: str, count: int = 1, *, ack: bool = False) -> list[dict[str, Any]]:
        """Look at messages as the UI does; without `ack` they are put back."""
        mode = "ack_requeue_false" if ack else "ack_requeue_true"
        body = {"count": count, "ackmode": mode, "encoding": "auto"}
        result: list[dict[str, Any]] = self.request("POST", "queues", vhost, queue, "get", body=body)
        return result

    def connections(self, vhost: str | None = None) -> list[dict[str, Any]]:
        """Return the open connections of a virtual host, or of all; a new one takes a moment to show up."""
        path = ("connections",) if vhost is None else ("vhosts", vhost, "connections")
        return self._list(*path)


def no_answer(url: str, error: OSError | http.client.HTTPException, timeout: float) -> str:
    """Return why there was no answer in HTTP, and what to do."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    match cause:
        case ConnectionRefusedError():
            return (
                f"Nothing listens at {url}: is the port right (15672 as a rule), and the management plugin on "
                f"(rabbitmq-plugins enable rabbitmq_management)?"
            )
        case socket.gaierror():
            return f"The name of the host in {url} cannot be resolved: {cause.strerror}."
        case ssl.SSLCertVerificationError():
            return f"The certificate of {url} is not trusted: {cause.verify_message}."
        case ssl.SSLError():
            return f"What listens at {url} does not speak TLS as it should ({cause.reason}): is it http:// there?"
        case http.client.InvalidURL():
            return f"The management URL {url} cannot be read: {cause}."
        case TimeoutError():
            return f"The management API at {url} did not answer within {timeout:g} s."
        case ConnectionResetError() | http.client.HTTPException():
            return (
                f"What listens at {url} does not speak HTTP: 5672 is AMQP's port, the management API's is 15672 as a "
                f"rule; with TLS it is https://."
            )
    return f"The management API at {url} cannot be reached: {cause}."
