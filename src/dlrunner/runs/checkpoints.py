"""Checkpoint files: streamed to disk by torch, and loaded without executing anything in them."""

from __future__ import annotations

import contextlib
import hashlib
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from dlrunner.errors import RunError


def save_weights(state: Mapping[str, Any], file: BinaryIO) -> None:
    """Write with torch.save, straight into the file: a buffer would hold a second copy in memory."""
    writer = _Writer(file)
    try:
        torch.save(state, writer)  # type: ignore[arg-type]  # it calls only write and flush
    except Exception:
        if writer.error is not None:
            raise writer.error from None
        raise


class _Writer:
    """A file that keeps the original error: on a full disk torch.save reports only "unexpected pos"."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: BaseException | None = None

    def write(self, content: bytes | memoryview) -> int:
        with self._keeping_error():
            return self.file.write(content)

    def flush(self) -> None:
        with self._keeping_error():
            self.file.flush()

    @contextlib.contextmanager
    def _keeping_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:  # a stop signal too
            self.error = error
            raise


def load_weights_file(path: Path) -> dict[str, Any]:
    """Load a .pt file without executing anything in it.

    Raises:
        RunError: the file is truncated, damaged or not a checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load does not verify the checksums
        if damaged:
            raise zipfile.BadZipFile(f"checksum mismatch in {damaged}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # pickle, zip and torch raise a dozen types
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"{path} is damaged or not a checkpoint ({first[:120]})") from None
    if not isinstance(content, dict):
        raise RunError(f"{path} is not a dlrunner checkpoint")
    return content


def weights_digest(state: Mapping[str, Any]) -> str:
    """Return the sha256 of a state dict: names, shapes and bytes of all tensors."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        if isinstance(value, Tensor):
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            # A copy, since the strides of a 1 x 1 kernel in channels_last do not allow a view as bytes.
            plain = value.detach().cpu().clone(memory_format=torch.contiguous_format).flatten()
            digest.update(plain.view(torch.uint8).numpy().tobytes() if value.dim() else str(value.item()).encode())
    return digest.hexdigest()
