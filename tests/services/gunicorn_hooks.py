"""A configuration of gunicorn: its master sends a task before it forks, if it has loaded the service (and the broker is there); workers log that they serve."""

from __future__ import annotations

from typing import Any


def when_ready(server: Any) -> None:
    if server.cfg.preload_app:  # the master has an I/O thread and a connection from now on
        from amqpworker import SendError
        from examples.tasks import send_welcome

        try:
            server.log.info("sent before the fork: %s", send_welcome.send(0).id)
        except SendError as error:
            server.log.info("the master could not send: %s", error)


def post_worker_init(worker: Any) -> None:
    worker.log.info("worker %s serves", worker.pid)
