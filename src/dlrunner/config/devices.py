"""The device that a configuration asks for."""

from __future__ import annotations

import torch

from dlrunner.config.schema import Settings
from dlrunner.system.process_group import local_rank


def resolve_device(settings: Settings, problems: list[str]) -> torch.device | None:
    """Resolve `device`, refusing one that is not there."""
    name = settings.device
    if name == "auto":
        name = (
            "cuda" if torch.cuda.is_available() else "cpu"
        )  # an Apple GPU only where it is asked for: it has no float64
    if name == "cuda":
        name = f"cuda:{local_rank() or 0}"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        problems.append(f"device: {name!r} is unknown; take auto, cpu, cuda, cuda:1 or mps")
        return None
    if kind == "cuda" and not torch.cuda.is_available():
        problems.append("device: this machine has no CUDA device that torch can use; take device=cpu or device=auto")
        return None
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        problems.append(f"device: there is no {name}; this machine has {torch.cuda.device_count()} CUDA device(s)")
        return None
    if kind == "mps" and not torch.backends.mps.is_available():
        problems.append("device: this machine has no Apple GPU; take device=cpu or device=auto")
        return None
    if settings.precision == "fp16" and kind == "cpu":
        problems.append("precision: fp16 needs a GPU; take bf16 or fp32 on the CPU")
    if settings.precision == "bf16" and kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        problems.append(
            f"precision: {torch.cuda.get_device_name(name)} has no bfloat16, it would only be emulated, slowly; "
            "take fp16 or fp32"
        )
    return torch.device(name)
