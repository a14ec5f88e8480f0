"""Reading a TOML file that users write; a mistake is an error of one line that names the file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from amqpworker.errors import ConfigError
from amqpworker.text import did_you_mean


def load_toml(path: Path) -> dict[str, Any]:
    """Return the content of a file; raises ConfigError if it cannot be read or is not TOML."""
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not TOML: it is not in UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not TOML: {error}.") from None


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Return what is wrong with a key that is not known, and which one may be meant."""
    return f"unknown key{did_you_mean(key, known)}"
