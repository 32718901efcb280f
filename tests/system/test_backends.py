"""How torch is told to compute: in a process of its own, for the settings stay with a process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dlrunner.system.backends import (
    configure,
    enable_cudnn_benchmark,
    matmul_precision,
    restored_threads,
    set_threads,
)
from tests.conftest import Forked


def compute(_: tuple[str, ...]) -> int:
    """Configure a GPU in three ways, and print what torch was told."""

    def told() -> None:
        backends: Any = torch.backends
        print(
            *(torch.are_deterministic_algorithms_enabled(), backends.cudnn.deterministic, backends.cudnn.benchmark),
            *(backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision, matmul_precision(gpu)),
        )

    gpu = torch.device("cuda:0")
    configure(gpu, deterministic=False, matmul="tf32")
    enable_cudnn_benchmark(gpu, fixed_shapes=True)
    told()
    enable_cudnn_benchmark(gpu, fixed_shapes=False)
    told()
    configure(gpu, deterministic=True, matmul="ieee")
    enable_cudnn_benchmark(gpu, fixed_shapes=True)
    told()
    return 0


def test_a_gpu_is_told_how_to_compute(here: Path) -> None:
    process = Forked((), here, {}, compute)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.splitlines() == [
        "False False True tf32 tf32 tf32",
        "False False False tf32 tf32 tf32",
        "True True False ieee ieee ieee",
    ]


def test_a_run_gives_its_threads_back() -> None:
    before = torch.get_num_threads()
    with restored_threads():
        torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("occupied", "threads"), [(None, 4), (1, 1), (3, 3), (9, 4)])
def test_threads_are_no_more_than_a_batch_occupies(
    occupied: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlrunner.system.backends.num_cores", lambda: 4)
    with restored_threads():
        torch.set_num_threads(5)
        set_threads(None, occupied)
        assert torch.get_num_threads() == threads


def test_threads_are_no_more_than_the_cores_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        monkeypatch.setattr("dlrunner.system.backends.num_cores", lambda: 1)
        set_threads(None)
        assert torch.get_num_threads() == 1
        set_threads(2, occupied=1)  # asked for
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
