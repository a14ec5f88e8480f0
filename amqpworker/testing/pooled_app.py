"""
The app of a test in its worker processes: `moved_app` names in the environment which app it is, and which broker it uses.

Only for `amqpworker worker`, and for the processes of isolated tasks, that a test starts.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from amqpworker.errors import ConfigError
from amqpworker.testing.moved_app import VARIABLE, Place, parts_at
from amqpworker.worker.app_loader import load_app

if TYPE_CHECKING:
    from amqpworker.app import App


def _load() -> App:
    if VARIABLE not in os.environ:
        raise ConfigError(f"{__name__} is for the processes of tests: {VARIABLE} is not set.")
    place = Place.load(os.environ[VARIABLE])
    sys.path.extend(each for each in place.path if each not in sys.path)
    found = load_app(place.target)
    found.exchange_parts(parts_at(found, place))
    return found


app = _load()
