"""
`python -m amqpworker.supervisor`: the supervisor as a program, which `amqpworker worker` becomes.

Decides the exit code of an error that ends it: 2 if a user has to fix something, else 1. It imports only what a supervisor
needs, so it is small and starts fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from amqpworker.errors import AmqpWorkerError, ConfigError
from amqpworker.ipc.exit_status import FAILED, MISCONFIGURED
from amqpworker.log.format import configure, log_uncaught
from amqpworker.log.logger import get_logger
from amqpworker.log.redaction import redact_text
from amqpworker.log.terminal import escape_unencodable, print_error
from amqpworker.supervisor.launch import parse_config
from amqpworker.supervisor.supervisor import Supervisor

NAME = "amqpworker"

# Not `__name__`, which is `__main__` here.
log = get_logger("amqpworker.supervisor")


def main(arguments: Sequence[str]) -> int:
    """Run the pools in the last argument; return the exit code."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(NAME)  # what `top` shows
    escape_unencodable()
    config = parse_config(arguments[-1])
    configure(config.log_level, config.log_json, user_code=False)
    log_uncaught()
    try:
        return Supervisor(config.pools, health=config.health, max_starts=config.cores, folder=config.folder).run()
    except AmqpWorkerError as error:
        code = MISCONFIGURED if isinstance(error, ConfigError) else FAILED
        if config.log_json:
            log.critical("start_failed", reason=str(error), code=code)
        else:
            print_error(redact_text(str(error)))
        return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
