"""What is reported of a management URL where no management API answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from amqpworker.cli.topology_command import management_of
from amqpworker.errors import ConfigError


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Listen and give each client this answer; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, suppress(OSError):
                        connection.recv(65536)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def http(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


def problem_of(url: str) -> str:
    """Ask for the queues and return the one line that is reported."""
    with pytest.raises(ConfigError) as caught:
        management_of(url, "me", "sesame").queues("/")
    text = str(caught.value)
    assert "sesame" not in text
    assert "\n" not in text
    assert not any(raw in text for raw in ("urlopen", "Errno", "_ssl.c"))
    return text


LOGIN = b'{"error":"not_authorised","reason":"Not management user"}'


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"AMQP\x00\x00\x09\x01", "does not speak HTTP: 5672 is the port of AMQP"),
        (b"", "does not speak HTTP"),
        (http("401 Unauthorized", LOGIN), "refused the login of user 'me' (not_authorised: Not management user)"),
        (http("401 Unauthorized", b"<html>"), "refused the login of user 'me': it requires"),
        (http("404 Not Found", b"<html>no</html>"), "is not RabbitMQ's management API: check host, port"),
        (http("404 Not Found", b"[1]"), "is not RabbitMQ's management API"),
        (
            http("404 Not Found", b'{"error":"Object Not Found","reason":"Not Found"}'),
            "HTTP 404 Object Not Found: Not Found.",
        ),
        (http("502 Bad Gateway", b"<html>"), "responded to GET /api/queues// with HTTP 502."),
        (http("200 OK", b"<html>welcome</html>"), "is not RabbitMQ's management API"),
        (http("200 OK", b"\xff\xfe\xfd"), "is not RabbitMQ's management API"),
        (http("200 OK", b'{"queues": []}'), "is not RabbitMQ's management API"),
        (http("200 OK", b""), "is not RabbitMQ's management API"),
    ],
)
def test_another_server_is_distinguished_from_a_management_api_that_refuses(answer: bytes, told: str) -> None:
    with answering(answer) as port:
        assert told in problem_of(f"http://127.0.0.1:{port}/")


def test_a_port_where_nothing_listens_is_reported_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    told = problem_of(f"http://me:sesame@127.0.0.1:{port}")
    assert told.startswith(f"Connection refused by http://127.0.0.1:{port}: is the port correct")
    assert "rabbitmq-plugins enable rabbitmq_management" in told


def test_https_to_a_port_without_tls_is_reported_as_perhaps_http() -> None:
    with answering(http("400 Bad Request", b"")) as port:
        assert "should the URL begin with http://?" in problem_of(f"https://127.0.0.1:{port}")


@pytest.mark.parametrize("url", ["http://a..b/", "http://localhost/a b"])
def test_a_url_that_is_unfit_for_a_request_is_reported(url: str) -> None:
    problem_of(url)
