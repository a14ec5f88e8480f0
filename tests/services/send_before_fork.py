"""A configuration of gunicorn: its master sends a task before it forks, so that it has an I/O thread and a connection."""

from __future__ import annotations

from typing import Any

preload_app = True


def when_ready(server: Any) -> None:
    from examples.tasks import send_welcome

    server.log.info("sent before the fork: %s", send_welcome.send(0).id)
