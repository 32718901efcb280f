"""An encoder in a file: the weights of a language model, for a text classifier with the same vocabulary."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dlrunner.errors import ConfigError, DataError
from dlrunner.files.paths import user_path

FILE = "encoder.pt"

Cell = Literal["lstm", "gru", "qrnn"]


@dataclass(frozen=True)
class EncoderSizes:
    """Sizes that must agree before weights can be loaded."""

    embedding: int
    hidden: int
    layers: int
    cell: Cell

    def __str__(self) -> str:
        return f"embedding {self.embedding}, hidden {self.hidden}, layers {self.layers}, cell {self.cell}"


@dataclass(frozen=True)
class Encoder:
    """Weights with their sizes, the words that the rows of the embedding stand for, and how texts became words."""

    weights: Mapping[str, Tensor]
    sizes: EncoderSizes
    words: Sequence[str]
    tokenizer: str
    lower: bool

    def content(self) -> bytes:
        """Return the file's content, bfloat16 weights staying what they are."""
        buffer = io.BytesIO()
        plain = {name: weight.detach().cpu() for name, weight in self.weights.items()}
        torch.save({**vars(self), "weights": plain, "words": list(self.words), "sizes": asdict(self.sizes)}, buffer)
        return buffer.getvalue()

    @classmethod
    def read(cls, path: Path) -> Encoder:
        """Read the file, or the one in a run's folder.

        Raises:
            DataError: it is missing, damaged, or not an encoder.
        """
        place = encoder_file(path)
        try:
            found: dict[str, Any] = torch.load(place, weights_only=True, map_location="cpu")
            return cls(**{**found, "sizes": EncoderSizes(**found["sizes"])})
        except Exception:  # torch raises a dozen kinds for files that are not its own
            raise DataError(f"{place} is not an encoder: it is damaged, or another kind of file") from None


def encoder_file(path: Path) -> Path:
    """Return the file that a setting means: a file, or a run's folder.

    Raises:
        ConfigError: there is none.
    """
    path = user_path(path)
    place = path / FILE if path.is_dir() else path
    if path.is_dir() and not place.is_file():
        raise ConfigError(f"model.encoder: {path} has no {FILE}: is it a finished run of a language model?")
    if not place.is_file():
        kind = "file" if path.suffix == Path(FILE).suffix else "run folder"  # whose name may have a point, as in lr=0.1
        raise ConfigError(f"model.encoder: there is no {kind} {path}")
    return place


def digest_of_words(words: Sequence[str]) -> str:
    """Return eight hex digits that identify a vocabulary."""
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:8]
