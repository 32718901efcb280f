"""Uploaded images: the rows that they make, and what is said of a request without any."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from dlrunner.predictor import RowField

SHAPE = "send one or more files named image as multipart/form-data: curl -F image=@a.jpg -F image=@b.jpg"

FILE = {"type": "string", "contentMediaType": "application/octet-stream"}
FORM = {"type": "object", "required": ["image"], "properties": {"image": {"type": "array", "items": FILE}}}
BODY: dict[str, Any] = {"required": True, "content": {"multipart/form-data": {"schema": FORM}}}
"""The body of a request of files, in OpenAPI."""


class UploadError(Exception):
    """A request has not the files that it should have; the message says what to send."""


def takes_files(fields: Sequence[RowField]) -> bool:
    """Return whether a row needs an image and nothing else."""
    return [field.type for field in fields if not field.is_optional] == ["image"]


async def uploaded(request: Request, most: int) -> tuple[list[str], list[bytes]]:
    """Return the names and contents of the files of a form; a file without a name has its number.

    FastAPI's own reading of files ends at 1,000.

    Args:
        request: its body is read.
        most: files of a request.

    Raises:
        UploadError: it is not a form of files named image, or has too many.
    """
    try:
        async with request.form(max_files=most) as form:
            given = form.getlist("image")
            files = [each for each in given if isinstance(each, UploadFile)]
            others = sorted(set(form) - {"image"})
            if not given:
                raise UploadError(f"there is no file; {SHAPE}")
            if others:  # it would go unanswered
                raise UploadError(f"there is no field {others[0][:60]!r}; {SHAPE}")
            if len(files) < len(given):
                raise UploadError(f"a field named image is not a file; {SHAPE}")
            names = [each.filename or f"file {number}" for number, each in enumerate(files, start=1)]
            return names, [await each.read() for each in files]
    except HTTPException as error:
        if error.detail.startswith("Too many files"):
            raise UploadError(f"a request has at most {most:,} files; send several requests") from None
        reason = f"{error.detail[:1].lower()}{error.detail[1:].rstrip('.')}"
        raise UploadError(f"the files could not be read ({reason}); {SHAPE}") from None


def table_of_files(contents: Sequence[bytes], fields: Sequence[RowField]) -> pd.DataFrame:
    """Return the rows of uploaded files, each base64-encoded as in a request of rows."""
    name = next(field.name for field in fields if field.type == "image")
    encoded = [base64.b64encode(each).decode() for each in contents]
    return pd.DataFrame({name: pd.Series(encoded, dtype="str")})


def named(reasons: Mapping[int, str], files: Sequence[str]) -> dict[int, str]:
    """Return the reasons why files cannot be read, with their names.

    >>> named({1: "is empty"}, ["a.png", "b.png"])
    {1: 'b.png is empty'}
    """
    return {row: f"{files[row]} {reason}" for row, reason in reasons.items()}
