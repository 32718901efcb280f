"""Cores are counted as this process may use them."""

from __future__ import annotations

import builtins
import io
import os
from typing import Any

import pytest

from dlrunner.system.parallel import num_cores

CGROUP_1 = {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "{}", "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}
CGROUP_2 = {"/sys/fs/cgroup/cpu.max": "{} 100000"}


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


def limit(files: dict[str, str], quota: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process see a container's files."""
    exists, read = os.path.exists, builtins.open

    def is_there(path: Any) -> bool:
        return path in files if str(path).startswith("/sys/fs/cgroup") else exists(path)

    def reading(path: Any, *args: Any, **kwargs: Any) -> Any:
        return io.StringIO(files[path].format(quota)) if path in files else read(path, *args, **kwargs)

    monkeypatch.setattr(os.path, "exists", is_there)
    monkeypatch.setattr(builtins, "open", reading)


@pytest.mark.parametrize("files", [CGROUP_1, CGROUP_2], ids=["v1", "v2"])
@pytest.mark.parametrize(("quota", "cores"), [("200000", 2), ("50000", 1), ("1600000", 8)])
def test_the_quota_of_a_container_counts(
    files: dict[str, str], quota: str, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(files, quota, monkeypatch)
    assert num_cores() == cores


@pytest.mark.parametrize(("files", "none"), [(CGROUP_1, "-1"), (CGROUP_2, "max")], ids=["v1", "v2"])
def test_without_a_quota_the_affinity_counts(files: dict[str, str], none: str, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(files, none, monkeypatch)
    assert num_cores() == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 6}, raising=False)
    assert num_cores() == 3
