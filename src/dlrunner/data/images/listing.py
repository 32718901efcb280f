"""Which files of a folder or archive are images, and what is in it besides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from PIL import Image

from dlrunner.data.core.folders import counted, hidden_notes, is_hidden, skipped_notes
from dlrunner.data.core.source import ArchiveOrFolder

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
MODERN = (".avif", ".heic", ".heif", ".jxl")
"""Images that Pillow reads from some version on, or with a plugin."""
HEAD = 16
"""Bytes by which an image without a suffix is recognised."""
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
BRANDS = {b"avif": ".avif", b"avis": ".avif", b"heic": ".heic", b"heix": ".heic", b"mif1": ".heif"}
"""Of the container that AVIF and HEIC share."""


@dataclass(frozen=True)
class FoundImages:
    """The images of a folder or archive."""

    names: list[str]
    """Paths below it, sorted."""
    notes: tuple[str, ...] = ()
    """What else is in it, by kind."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """See `Listing`."""


def find_image_files(place: ArchiveOrFolder, used: Sequence[str] = ()) -> FoundImages:
    """Return the images of a folder or archive: by their suffix, or by their content where they have none.

    Args:
        place: the folder or archive.
        used: other files that are read, and are not reported.
    """
    listing = place.listing()
    visible = [name for name in listing.names if not is_hidden(name)]
    unnamed = [name for name in visible if not PurePosixPath(name).suffix and name not in used]
    kinds = {name: _kind_of(head) for name, head in place.heads(unnamed, HEAD).items()}
    images: list[str] = []
    unreadable: dict[str, list[str]] = {}
    others: list[str] = []
    for name in visible:
        kind = kinds.get(name) or PurePosixPath(name).suffix.lower()
        if is_readable(kind):
            images.append(name)
        elif kind in MODERN:
            unreadable.setdefault(kind, []).append(name)
        elif name not in used:
            others.append(name)
    notes = [
        f"not used: {counted(names, f'{kind} image')}, which Pillow cannot read here; convert them to JPEG or PNG"
        for kind, names in sorted(unreadable.items())
    ]
    notes += [f"not used, not an image: {counted(others, 'file')}"] if others else []
    hidden = [name for name in listing.names if is_hidden(name)]
    notes += hidden_notes([name for name in hidden if is_readable(PurePosixPath(name).suffix.lower())], "image")
    return FoundImages(sorted(images), (*notes, *skipped_notes(listing.skipped)), listing.skipped)


def is_readable(suffix: str) -> bool:
    """Tell whether Pillow reads images with a suffix, in lower case."""
    return suffix in SUFFIXES or (suffix in MODERN and suffix in Image.registered_extensions())


def _kind_of(head: bytes) -> str | None:
    """Return the suffix of an image with these first bytes; None: it is not an image."""
    if head.startswith(MAGIC) or (head.startswith(b"BM") and head[6:10] == bytes(4)):
        return ".png"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return ".webp"
    return BRANDS.get(head[8:12]) if head[4:8] == b"ftyp" else None
