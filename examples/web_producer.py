"""
A web service that sends tasks, and returns to its client whether the broker has accepted them.

    amqpworker worker examples.web_producer:app -p 1
    python -m examples.web_producer          # then: curl -X POST 'http://127.0.0.1:8008/?user_id=42'

Plain WSGI, so that it runs without a framework; in Flask or FastAPI the body of `serve` is a view. The app is created at
import and connects at its first send, also in each worker process of a server that forks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl
from wsgiref.simple_server import make_server

from amqpworker import App, InvalidArguments, SendError, Settings, Unconfirmed

app = App(settings=Settings(send_timeout=2))  # a client waits no longer than this


# With an explicit name, since this module is also run as a program: it is `__main__` then.
@app.task(name="web.send_welcome", queue="emails")
def send_welcome(user_id: int, lang: str = "en") -> None:
    """Write to a user."""


def serve(environ: dict[str, Any], respond: Callable[..., Any]) -> Iterable[bytes]:
    """Answer a request."""
    status, text = accept(dict(parse_qsl(environ["QUERY_STRING"])))
    respond(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [text.encode()]


def accept(arguments: dict[str, Any]) -> tuple[str, str]:
    """Send the task, and return the status and the text of the response."""
    try:
        sent = send_welcome.send(**arguments)
    except InvalidArguments as error:
        return "400 Bad Request", str(error)
    except Unconfirmed:
        # It may have arrived. A second request could welcome a user twice: the task must be idempotent.
        return "502 Bad Gateway", "unknown whether the task was accepted; try again"
    except SendError as error:
        return "503 Service Unavailable", f"not accepted: {error}"
    return "202 Accepted", sent.id


if __name__ == "__main__":
    with app, make_server("127.0.0.1", 8008, serve) as server:
        server.serve_forever()
