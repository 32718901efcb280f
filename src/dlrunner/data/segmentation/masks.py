"""Decoding of images with masks, and the mapping between mask values and classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dlrunner.data.images.decoding import Pixels, decode_whole, opened
from dlrunner.errors import ConfigError, DataError

IGNORED = 255
"""The code of pixels that are left out of loss and metrics."""
MOST_CLASSES = 255
NOT_LABELLED = {"void", "ignore", "ignored", "unlabeled", "unlabelled"}
"""Names of unlabelled pixels."""
SMALL_VALUE = 100
"""Where all other values are below this, 255 is ignored."""
GREY_STEPS = {"L;2": 85, "L;4": 17}
"""Pillow spreads grey values of two and four bits over 0 to 255: by these steps."""
COLOURS = (
    *((222, 222, 222), (0, 114, 178), (213, 94, 0), (0, 158, 115), (230, 159, 0), (204, 121, 167), (86, 180, 233)),
    *((240, 228, 66), (120, 94, 240), (140, 86, 75), (34, 34, 34), (154, 205, 50), (0, 128, 128), (128, 0, 0)),
)
"""Of the first classes: pale grey, then Okabe and Ito's (2008) and others."""


def decode_pair(
    contents: tuple[bytes, bytes], size: tuple[int, int], white: float | None = None
) -> tuple[Pixels, list[str]]:
    """Return an image and its mask as pixels, [height, width, 4]: red, green, blue, the mask's value.

    Args:
        contents: of the two files.
        size: height and width; the mask's values are taken from the nearest pixel, never mixed.
        white: see `decode`.

    Raises:
        DataError: one of them cannot be read, or they differ in size.
    """
    image, remarks = decode_whole(contents[0], white)
    try:
        mask, mask_remarks = decode_mask(contents[1])
    except DataError as error:
        raise DataError(f"has a mask that {error}") from None
    if image.size != mask.size:
        raise DataError(f"has {_size(image)} pixels, but its mask {_size(mask)}")
    return np.dstack([resized(image, size), resized(mask, size)]), [*remarks, *mask_remarks]


def resized(image: Image.Image, size: tuple[int, int]) -> Pixels:
    """Return an image, or a mask, as pixels of a size, height and width."""
    method = Image.Resampling.NEAREST if image.mode == "L" else Image.Resampling.BILINEAR
    return np.array(image.resize((size[1], size[0]), method))


def decode_mask(content: bytes) -> tuple[Image.Image, list[str]]:
    """Return a mask as a grey image of its values, 0 to 255, and remarks on how it was read.

    Raises:
        DataError: it is not an image, has colours instead of values, or values that were not kept exactly.
    """
    with opened(content) as mask:
        if mask.format == "JPEG":
            raise DataError("is a JPEG, which mixes the values of neighbouring pixels: save masks as PNG")
        stored = getattr(mask, "tile", None)  # how the pixels lie in the file
        step = GREY_STEPS.get(str(stored[0][3])) if stored else None
        values, remarks = np.asarray(mask), list[str]()
        if step is not None:
            values = values // step
        if mask.mode in ("RGB", "RGBA", "LA", "PA"):
            colours, opaque = (values, True) if mask.mode == "RGB" else (values[..., :-1], values[..., -1].min() == 255)
            if not opaque or (colours != colours[..., :1]).any():
                raise DataError(
                    f"has colours ({mask.mode}) instead of one value per pixel: save it as a grey or palette PNG "
                    "whose values are the numbers of the classes"
                )
            values, remarks = colours[..., 0], ["masks of three equal colours: one is read"]
        if values.dtype.kind == "f" or values.ndim != 2:
            raise DataError(f"has no integer values ({mask.mode})")
        if values.min() < 0 or values.max() > 255:
            raise DataError(f"has values from {values.min():,} to {values.max():,}; 0 to 255 can be read")
        return Image.fromarray(values.astype(np.uint8)), remarks


def _size(image: Image.Image) -> str:
    return f"{image.size[0]} × {image.size[1]}"


@dataclass(frozen=True)
class MaskClasses:
    """The mapping between mask values and classes."""

    names: list[str]
    values: list[int]
    """Of each class, in the masks."""
    ignored: int | None = None
    """The value of ignored pixels."""

    def codes(self) -> NDArray[np.int64]:
        """Return the class of each value, [256]; IGNORED for ignored ones."""
        codes = np.full(256, IGNORED, dtype=np.int64)
        codes[self.values] = np.arange(len(self.values))
        return codes

    def image(self, codes: Pixels) -> Image.Image:
        """Return classes of pixels, [height, width], as a palette image with the values of the user's own masks."""
        values = np.array(self.values, dtype=np.uint8)[codes]
        image = Image.frombytes("P", values.shape[::-1], values.tobytes())
        palette = np.zeros((256, 3), np.uint8)
        palette[self.values] = colours(len(self.values))
        image.putpalette(palette.tobytes())
        return image

    def state(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> MaskClasses:
        """Return the classes of a stored `state`."""
        return cls(**state)


def colours(count: int) -> Pixels:
    """Return a colour for each class, [count, 3]; beyond the list they are random with a fixed seed."""
    drawn = np.random.default_rng(0).integers(40, 230, (max(count - len(COLOURS), 0), 3))
    return np.array([*COLOURS, *drawn.tolist()][:count], dtype=np.uint8)


def read_classes(
    counts: NDArray[np.int64],
    masks: Sequence[str],
    names: Sequence[str] | None,
    ignore: Literal["auto", "none"] | int,
    path: str,
) -> tuple[MaskClasses, list[str]]:
    """Return the classes of the values in masks, and notes.

    Without names each value that occurs is a class. With names a value is the number of its name, from 0; masks of 0
    and 255 alone have two classes.

    Args:
        counts: pixels of each value by mask, [masks, 256].
        masks: their files.
        names: of the classes; None: they have no names.
        ignore: the value of ignored pixels; `auto`: that of a class named void, ignore or unlabelled, else 255 where
            all other values are below 100.
        path: for messages.

    Raises:
        ConfigError: there are fewer than two classes, or too many.
        DataError: a mask has a value without a name.
    """
    occurring = np.flatnonzero(counts.sum(axis=0)).tolist()
    binary = set(occurring) == {0, 255} and ignore in ("auto", "none") and (names is None or len(names) == 2)
    notes = []
    if binary:
        found = MaskClasses(list(names) if names else ["0", "255"], [0, 255])
        return found, ["masks contain only 0 and 255: two classes"]
    ignored = _ignored(occurring, names) if ignore == "auto" else None if ignore == "none" else ignore
    if names is None:
        values = [value for value in occurring if value != ignored]
        found = MaskClasses([str(value) for value in values], values, ignored)
        notes.append(
            f"the classes have no names (codes.txt, or data.classes=[…]): each value is a class: "
            f"{', '.join(found.names[:12])}{' …' if len(values) > 12 else ''}"
        )
    else:
        values = [value for value in range(len(names)) if value != ignored]
        found = MaskClasses([names[value] for value in values], values, ignored)
        for value in occurring:
            if value != ignored and value >= len(names):
                mask = masks[int((counts[:, value] > 0).argmax())]
                raise DataError(
                    f"{path}: {mask} has the value {value}, which has no name: the {len(names)} names are of 0 to "
                    f"{len(names) - 1} (data.ignore={value}, if such pixels are to be ignored)"
                )
        if absent := [name for name, value in zip(found.names, values, strict=True) if value not in occurring]:
            notes.append(f"{len(absent)} of the classes are in no mask ({', '.join(absent[:3])})")
    if not 2 <= len(found.names) <= MOST_CLASSES:
        raise ConfigError(
            f"{path}: the masks have {len(found.names)} class(es); segmentation needs 2 to {MOST_CLASSES}"
        )
    if ignored is not None:
        fraction = counts[:, ignored].sum() / counts.sum()
        name = f" ({names[ignored]})" if names is not None and ignored < len(names) else ""
        notes.append(
            f"pixels of value {ignored}{name} are ignored: {fraction:.1%} (data.ignore=none makes them a class)"
        )
    return found, notes


def _ignored(occurring: Sequence[int], names: Sequence[str] | None) -> int | None:
    for value, name in enumerate(names or []):
        if name.strip().lower() in NOT_LABELLED:
            return value
    others = [value for value in occurring if value != 255]
    return (
        255 if 255 in occurring and len(others) > 1 and max(others) < SMALL_VALUE and len(names or []) < 256 else None
    )
