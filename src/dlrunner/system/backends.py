"""Settings of torch's backends: CPU threads, matmul precision, cuDNN benchmark, determinism."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Literal

import torch

from dlrunner.system.parallel import num_cores


@contextlib.contextmanager
def restored_threads() -> Iterator[None]:
    """Restore the process's number of CPU threads afterwards, for the next run in it."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def set_threads(num_threads: int | None, occupied: int | None = None) -> None:
    """Set the CPU threads of this process.

    Args:
        num_threads: as many; None: torch's default, at most the available cores.
        occupied: without num_threads: at most as many; None: any number.
    """
    available = min(torch.get_num_threads(), num_cores())
    torch.set_num_threads(num_threads or min(available, occupied or available))


def configure(device: torch.device, deterministic: bool, matmul: Literal["tf32", "ieee"]) -> None:
    """Configure torch's backends for a device; called at the start of a run.

    Args:
        device: of the run.
        deterministic: use deterministic algorithms only; operations without one raise an error.
        matmul: precision of float32 matmuls and convolutions on a GPU; tf32 rounds inputs to 10 bits of mantissa.
    """
    if device.type == "cpu":  # deterministic anyway
        return
    if deterministic:  # cuBLAS reads it when it is initialised
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = False
    if device.type == "cuda":
        torch.backends.cuda.matmul.fp32_precision = matmul
        torch.backends.cudnn.conv.fp32_precision = matmul  # type: ignore[attr-defined]
        torch.backends.cudnn.rnn.fp32_precision = matmul  # type: ignore[attr-defined]


def enable_cudnn_benchmark(device: torch.device, fixed_shapes: bool) -> None:
    """Let cuDNN benchmark its algorithms, if inputs have a fixed shape and determinism is not required."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.backends.cudnn.benchmark = device.type == "cuda" and fixed_shapes and not deterministic


def matmul_precision(device: torch.device) -> str:
    """Return the precision of float32 matmuls on a device: tf32, or ieee."""
    return torch.backends.cuda.matmul.fp32_precision if device.type == "cuda" else "ieee"
