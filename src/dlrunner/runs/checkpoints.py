"""Checkpoint files: written by torch straight into the file, read without executing anything in them."""

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
    """Write with torch.save, straight into the file: in memory a checkpoint would be there twice."""
    writer = _Writer(file)
    try:
        torch.save(state, writer)  # type: ignore[arg-type]  # it needs no more
    except Exception:
        if writer.error is not None:
            raise writer.error from None
        raise


class _Writer:
    """A file that remembers why it could not be written: torch.save says "unexpected pos" of a full disk."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: BaseException | None = None

    def write(self, content: bytes | memoryview) -> int:
        with self._remembered():
            return self.file.write(content)

    def flush(self) -> None:
        with self._remembered():
            self.file.flush()

    @contextlib.contextmanager
    def _remembered(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:  # a stop signal's too
            self.error = error
            raise


def load_weights_file(path: Path) -> dict[str, Any]:
    """Read a .pt file without executing anything in it.

    Raises:
        RunError: the file is truncated, damaged or not a checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch.load itself does not compare the check sums
        if damaged:
            raise zipfile.BadZipFile(f"{damaged} does not match its check sum")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # pickle, zip and torch have a dozen ways to say it
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RunError(f"{path} is damaged or not a checkpoint ({first[:120]})") from None
    if not isinstance(content, dict):
        raise RunError(f"{path} is not a checkpoint of dlrunner")
    return content


def weights_digest(state: Mapping[str, Any]) -> str:
    """Return the sha256 of a state dict: names, shapes and bytes of all tensors."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        if isinstance(value, Tensor):
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            # A copy: of a kernel of 1 x 1 in channels_last the strides are not those that a view as bytes needs.
            plain = value.detach().cpu().clone(memory_format=torch.contiguous_format).flatten()
            digest.update(plain.view(torch.uint8).numpy().tobytes() if value.dim() else str(value.item()).encode())
    return digest.hexdigest()
