"""
How many cores a pool can use: by its CPU affinity, and by the CPU quotas of its control groups.

Quotas are read in both versions of control groups, in the group of the process and in all its parents.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

CGROUP_MOUNT = "sys/fs/cgroup"
OWN_GROUPS = "proc/self/cgroup"


def usable_cores(root: Path = Path("/")) -> int:
    """Return how many cores this process can use, at least one; system files are read below `root`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = (_quota_of(folder) for folder in _control_groups(root))
    return max(1, min([cores, *(quota for quota in quotas if quota is not None)]))


def _control_groups(root: Path) -> Iterator[Path]:
    mount, own = root / CGROUP_MOUNT, "0::/\n1:cpu:/"
    with suppress(OSError, ValueError):
        own = (root / OWN_GROUPS).read_text()
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        # A container can see the path that its group has outside; its own group is then at the mount point.
        places = [PurePosixPath(path), *PurePosixPath(path).parents]
        if controllers == "":
            yield from (mount / str(place).lstrip("/") for place in places)
        elif "cpu" in controllers.split(","):
            base = next((folder for folder in (mount / controllers, mount / "cpu") if folder.is_dir()), mount)
            yield from (base / str(place).lstrip("/") for place in places)


def _quota_of(group: Path) -> int | None:
    """Return how many cores a control group can use, rounded up; None if it has no quota."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        with suppress(OSError, ValueError):
            words = [word for name in names for word in (group / name).read_text().split()]
            quota, period = map(int, words)  # in version 2 it is "max" if there is none
            return None if quota <= 0 or period <= 0 else -(-quota // period)
    return None
