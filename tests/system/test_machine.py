"""What is recorded of a machine."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch

from dlrunner.system.machine import peak_memory_mb, reset_peak_memory


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak can be reset on Linux alone")
def test_peak_memory_is_that_of_the_run_and_not_of_an_earlier_one() -> None:
    device = torch.device("cpu")
    reset_peak_memory(device)
    before = peak_memory_mb(device)["host"]
    with mmap.mmap(-1, 2**28) as large:  # malloc may keep what it is given back
        large.write(b"x" * 2**28)
    during = peak_memory_mb(device)["host"]
    assert during > before + 200
    reset_peak_memory(device)
    assert peak_memory_mb(device)["host"] < during - 200


def test_the_peak_of_a_gpu_is_reset_once_it_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.device] = []
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", calls.append)
    for in_use in (False, True):
        monkeypatch.setattr("torch.cuda.is_initialized", lambda in_use=in_use: in_use)
        reset_peak_memory(torch.device("cuda"))
    assert calls == [torch.device("cuda")]
