"""Which files the demo works on."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

FOREIGN = {"site-packages", "dist-packages", "__pycache__"}

# Files that cannot be parsed. A full standard library has some among its tests, Debian's has none.
BROKEN = {
    "broken_syntax.py": b"def broken(:\n    return 1\n",
    "not_utf8.py": b"name = '\xff\xfe'\n",
}


def standard_library() -> Path:
    """Return the folder of the standard library of this Python."""
    return Path(sysconfig.get_path("stdlib"))


def python_files(folder: Path) -> list[Path]:
    """Return the source files below a folder, in the order of their names, without installed packages."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in FOREIGN]
        found.extend(Path(place, name) for name in names if name.endswith(".py"))
    return sorted(path for path in found if path.is_file() and is_text(str(path)))


def is_text(name: str) -> bool:
    """Return whether a name is JSON serializable: the bytes of a Linux file name may not be UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def repair(path: Path) -> bool:
    """Make one of the files that cannot be parsed a valid one; return whether it is one of them."""
    if path.name not in BROKEN or path.read_bytes() != BROKEN[path.name]:
        return False
    path.write_bytes(b"def repaired():\n    return 1\n")
    return True


def broken_files(folder: Path) -> list[Path]:
    """Create a few files that cannot be parsed, and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in BROKEN.items():
        (folder / name).write_bytes(content)
    return [folder / name for name in BROKEN]
