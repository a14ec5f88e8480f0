"""pytest with our plugin, as an installed wheel has it: an editable installation may not know the entry point yet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

OPTIONS = (
    *("-p", "no:amqpworker", "-p", "amqpworker.testing.pytest_plugin"),
    *("-p", "no:cacheprovider", "-p", "no:hypothesispytest"),
)


def run_pytest(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the tests in a folder by another pytest, with these variables in its environment."""
    command = [sys.executable, "-m", "pytest", *OPTIONS, "--rootdir", str(folder), *options]
    env = {**os.environ, **variables}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=110, check=False)
