"""The device of a configuration, and its precision."""

from __future__ import annotations

from typing import Literal

import torch

from dlrunner.config.schema import Settings
from dlrunner.system.precision import has_bfloat16
from dlrunner.system.torchrun import local_rank


def resolve_device(settings: Settings, problems: list[str]) -> torch.device | None:
    """Resolve `device`, and refuse one that is not available."""
    name = settings.device
    if name == "auto":  # never mps, which has no float64
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        name = f"cuda:{local_rank() or 0}"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        problems.append(f"device: {name!r} is unknown; use auto, cpu, cuda, cuda:1 or mps")
        return None
    if kind == "cuda" and not torch.cuda.is_available():
        problems.append("device: torch finds no CUDA device; use device=cpu or device=auto")
        return None
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        problems.append(f"device: there is no {name}; this machine has {torch.cuda.device_count()} CUDA device(s)")
        return None
    if kind == "mps" and not torch.backends.mps.is_available():
        problems.append("device: this machine has no Apple GPU; use device=cpu or device=auto")
        return None
    if settings.precision == "fp16" and kind == "cpu":
        problems.append("precision: fp16 needs a GPU; use bf16 or fp32 on the CPU")
    if settings.precision == "bf16" and kind == "cuda" and not has_bfloat16(torch.device(name)):
        problems.append(
            f"precision: {torch.cuda.get_device_name(name)} would only emulate bf16, which is slow; use fp16 or fp32"
        )
    return torch.device(name)


def automatic_precision(device: torch.device, good_in_bf16: bool) -> tuple[Literal["fp32", "bf16"], str]:
    """Return what `precision=auto` is, and why.

    Args:
        device: of the run.
        good_in_bf16: what the task declares (`Task.good_in_bf16`).
    """
    if not good_in_bf16:
        return "fp32", "results of this task in bfloat16 have not been shown to be as good"
    if not has_bfloat16(device):
        return "fp32", f"this {device.type} has no bfloat16 in hardware"
    return "bf16", f"this {device.type} has bfloat16 in hardware"
