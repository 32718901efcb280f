"""Files of the cache carry a checksum: what is damaged is found when it is read, told, and made again.

CRC-32, for it guards against accidents and not against people: 0.15 s for a gigabyte (blake2b takes 0.8).
"""

from __future__ import annotations

import logging
import sys
import zlib
from pathlib import Path

MARK = b"dlrunner cache 1 "
LENGTH = len(MARK) + 9
"""Bytes before the content: the mark, eight hex digits, a line break."""

log = logging.getLogger("dlrunner")


def sealed(content: bytes | memoryview) -> bytes:
    """Return a content with its checksum before it, as a file of the cache.

    >>> sealed(b"abc")
    b'dlrunner cache 1 352441c2\\nabc'
    """
    return b"".join([MARK, b"%08x\n" % zlib.crc32(content), content])


def read_sealed(path: Path) -> bytes | None:
    """Return the content of a file of the cache; None where there is none, or where it is damaged, which is told."""
    try:
        with path.open("rb", buffering=0) as file:  # a buffer would copy all of it once more
            head, content = file.read(LENGTH), file.read()
    except OSError:
        return None
    if head != MARK + b"%08x\n" % zlib.crc32(content):
        warn_damaged(path)
        return None
    return content


def warn_damaged(path: Path) -> None:
    """Say that a file of the cache is damaged."""
    told = f"note: {path} in the cache is damaged; it is made again"
    print(told, file=sys.stderr, flush=True)
    log.warning(told)
