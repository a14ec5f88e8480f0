"""
The HTTP servers of a supervisor: on a port, or on a unix socket.

Decides how many clients are served at once. If there are too many, the one that has been connected the longest is
disconnected: so slow clients never lock out a new one.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

from amqpworker.errors import AmqpWorkerError, ConfigError
from amqpworker.supervisor.sockets import is_abandoned

CLIENT_TIMEOUT = 5.0
# Each takes a thread and a descriptor, which the supervisor needs to replace processes.
MAX_CLIENTS = 32
# No descriptor is left for a client: the listening socket stays readable meanwhile.
SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
SHORTAGE_PAUSE = 0.5

Respond: TypeAlias = Callable[[str], tuple[int, dict[str, Any]]]
"""Returns the status code and the JSON object for a path."""


class _Handler(BaseHTTPRequestHandler):
    timeout = CLIENT_TIMEOUT
    server: TcpServer

    def do_GET(self) -> None:
        code, content = self.server.respond(self.path.partition("?")[0])
        body = json.dumps(content).encode() + b"\n"
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            with suppress(OSError):
                self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()  # load balancers send it

    def log_message(self, *_: Any) -> None:
        """Log nothing: health checks arrive every few seconds."""

    def address_string(self) -> str:
        """Return "": a client of a unix socket has no address."""
        return ""


class TcpServer(ThreadingHTTPServer):
    """Serves on a port."""

    server_name, server_port = "amqpworker", 0
    daemon_threads = True
    # If it is full, clients retry a second later (TCP), or are refused (unix).
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], respond: Respond) -> None:
        self.respond = respond
        self._clients: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        self._pause = threading.Event()
        if self.address_family != socket.AF_UNIX:
            self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind without asking the name service for the host name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def shutdown(self) -> None:
        """Stop serving, also during a shortage of descriptors."""
        self._pause.set()
        super().shutdown()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a client; if no descriptor is left, disconnect another client and wait, instead of polling without a pause."""
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in SHORTAGE:
                self._disconnect_oldest(0)
                self._pause.wait(SHORTAGE_PAUSE)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a client in a thread of its own; above `MAX_CLIENTS` the oldest one is disconnected."""
        with self._lock:
            self._clients[request] = None
        self._disconnect_oldest(MAX_CLIENTS)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        """Close a client's connection."""
        with self._lock:
            self._clients.pop(request, None)
        super().close_request(request)

    def _disconnect_oldest(self, limit: int) -> None:
        """If there are more than `limit` clients, disconnect the oldest; its thread then closes the connection."""
        with self._lock:
            oldest = next(iter(self._clients)) if len(self._clients) > limit else None
            if oldest is not None:
                del self._clients[oldest]
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: Any) -> None:
        """Log nothing: the client has disconnected."""


class UnixServer(TcpServer):
    """Serves on a unix socket that only its owner may use."""

    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        """Replace a socket on which no process listens any more; any other file is an error."""
        path = Path(str(self.server_address[0]))
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise ConfigError(f"health {path}: the path exists and is not a socket: give another path.")
        if not is_abandoned(path):
            raise AmqpWorkerError(f"health {path}: another process listens there already.")
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self.socket.bind(str(path))
        finally:
            os.umask(before)
