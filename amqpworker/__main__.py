"""`python -m amqpworker`: the same as the program `amqpworker`."""

from __future__ import annotations

import sys

from amqpworker.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
