"""How torch computes on a device: threads of the CPU; precision, choice and determinism of a GPU's algorithms."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Literal

import torch

from dlrunner.system.parallel import num_cores


@contextlib.contextmanager
def own_threads() -> Iterator[None]:
    """Give back the number of CPU threads that the process had: the next run in it makes a choice of its own."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def set_threads(num_threads: int | None) -> None:
    """Set the CPU threads of this process: so many, or torch's own choice, but no more than the cores it may use."""
    torch.set_num_threads(num_threads or min(torch.get_num_threads(), num_cores()))


def configure(device: torch.device, deterministic: bool, matmul: Literal["tf32", "ieee"]) -> None:
    """Set how this process computes on its device; called where a run begins.

    Args:
        device: of the run.
        deterministic: only algorithms that give the same bits again; those that have none raise an error.
        matmul: float32 products and convolutions of a GPU: tf32 rounds their inputs to 10 bits of mantissa.
    """
    if device.type == "cpu":  # it gives the same bits again anyway
        return
    if deterministic:  # cuBLAS reads it when it begins
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = False
    if device.type == "cuda":
        torch.backends.cuda.matmul.fp32_precision = matmul
        torch.backends.cudnn.conv.fp32_precision = matmul  # type: ignore[attr-defined]
        torch.backends.cudnn.rnn.fp32_precision = matmul  # type: ignore[attr-defined]


def try_algorithms(device: torch.device, fixed_shapes: bool) -> None:
    """Let cuDNN try which algorithms are fastest, where inputs keep their size and the choice need not be the same."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.backends.cudnn.benchmark = device.type == "cuda" and fixed_shapes and not deterministic


def matmul_precision(device: torch.device) -> str:
    """Return the precision of float32 products on a device: tf32, or ieee."""
    return torch.backends.cuda.matmul.fp32_precision if device.type == "cuda" else "ieee"
