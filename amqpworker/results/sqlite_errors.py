"""
What errors of SQLite mean: whether they may pass, and in which words they are reported.

Decides by the result code (https://www.sqlite.org/rescode.html), and by the file itself if SQLite only reports that it cannot be
opened.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

_TRANSIENT = {
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_SCHEMA),
    *(sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT),
}

_REASONS = {
    sqlite3.SQLITE_BUSY: "another process keeps the file locked",
    sqlite3.SQLITE_CORRUPT: "the file is damaged",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_NOTADB: "the file is not a SQLite database",
    sqlite3.SQLITE_READONLY: "the file or its folder is read-only",
}


def is_busy(error: BaseException) -> bool:
    """Return whether another process keeps the file locked."""
    return _code_of(error) == sqlite3.SQLITE_BUSY


def is_permanent(error: BaseException, path: Path) -> bool:
    """Return whether an error does not pass without a change to the settings, the file or the permissions of this user."""
    code = _code_of(error)
    # SQLite does not report why it cannot open a file: too many are open, or there is no space for the files beside it.
    return not _is_usable(path) if code == sqlite3.SQLITE_CANTOPEN else code not in _TRANSIENT


def reason(error: BaseException, path: Path) -> str:
    """Return in a few words why SQLite failed, with what its own text leaves out."""
    code = _code_of(error)
    if code == sqlite3.SQLITE_CANTOPEN:
        try:
            if not path.parent.is_dir():
                return f"the folder {path.parent} does not exist"
            if path.is_dir():
                return "it is a folder"
        except PermissionError:
            return f"this user may not enter {path.parent}"
        return "it cannot be opened; its folder must be writable, too"
    return _REASONS.get(code) or str(error).removesuffix(".") or type(error).__name__


def _code_of(error: BaseException) -> int:
    # an extended code has the primary one in its lowest byte
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _is_usable(path: Path) -> bool:
    """Return whether this user may write the file and those beside it."""
    try:
        file = path.resolve()
        beside = [file.with_name(file.name + suffix) for suffix in ("", "-wal", "-shm")]
        existing = [one for one in beside if one.exists()]
        usable = all(one.is_file() and os.access(one, os.R_OK | os.W_OK) for one in existing)
        return usable and file.parent.is_dir() and os.access(file.parent, os.W_OK | os.X_OK)
    except OSError:
        return False
