"""
How a program of ours is started in a fresh interpreter.

Decides that no module of the app's folder can take the place of one that our own code needs: the folder is not on the path
while our code is imported. `locate` puts it there, when everything of ours is loaded.
"""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["command_of"]

# For a package that is found in the app's folder only: the folder goes behind everything else.
FROM_FOLDER = (
    "import sys, runpy; sys.path.append(sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def command_of(module: str) -> list[str]:
    """Return the beginning of the command that runs a module of ours; its arguments follow."""
    here = Path(__file__).parents[2]
    if here.is_dir() and here.samefile("."):
        return [sys.executable, "-P", "-c", FROM_FOLDER, str(here), module]
    return [sys.executable, "-P", "-m", module]
