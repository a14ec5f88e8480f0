"""What users install: the wheel has the package with its type hints, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.docs import ROOT


def test_the_wheel_has_the_package_with_its_type_hints_and_nothing_else(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)]
    done = subprocess.run(build, text=True, capture_output=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr

    (wheel,) = tmp_path.iterdir()
    with zipfile.ZipFile(wheel) as opened:
        names = {name for name in opened.namelist() if ".dist-info/" not in name}
    package = {str(path.relative_to(ROOT)) for kind in ("*.py", "*.html") for path in (ROOT / "amqpworker").rglob(kind)}
    assert names == {*package, "amqpworker/py.typed"}
