"""Autocast of a device: its dtype, how to disable it in a block, and whether bfloat16 is computed in hardware."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def float32_by_default() -> Iterator[None]:
    """Create tensors and weights in float32 within the block, whatever a notebook has set as torch's default."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """Return the current autocast dtype of a device; None if autocast is disabled."""
    kind = device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return None


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Disable autocast in a block."""
    kind = device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else contextlib.nullcontext()


def emulates_bfloat16(device: torch.device) -> bool:
    """Return whether autocast computes in bfloat16 on a CPU that does not have it in hardware."""
    return autocast_dtype(device) == torch.bfloat16 and device.type == "cpu" and not has_bfloat16(device)


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies matrices of bfloat16 in hardware, rather than emulating it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    known = torch.cpu.get_capabilities()
    return any(known.get(name, False) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))
