"""Uploaded images: the rows that they make, and what is said of a request without any."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import pandas as pd
from fastapi import UploadFile

from dlrunner.predictor import RowField

SHAPE = "send one or more files named image as multipart/form-data: curl -F image=@a.jpg -F image=@b.jpg"


def takes_files(fields: Sequence[RowField]) -> bool:
    """Return whether a row needs an image and nothing else."""
    return [field.type for field in fields if not field.is_optional] == ["image"]


async def table_of_files(files: Sequence[UploadFile], fields: Sequence[RowField]) -> pd.DataFrame:
    """Return the rows of uploaded files, each base64-encoded as in a request of rows."""
    name = next(field.name for field in fields if field.type == "image")
    contents = [base64.b64encode(await each.read()).decode() for each in files]
    return pd.DataFrame({name: pd.Series(contents, dtype="str")})


def about_files(reason: str = "") -> str:
    """Return what is wrong with a request of files.

    >>> about_files("Missing boundary in multipart.")
    'the files could not be read (missing boundary in multipart); send one or more files named image as multipart/form-data: curl -F image=@a.jpg -F image=@b.jpg'
    """  # noqa: E501
    why = f" ({reason[:1].lower()}{reason[1:].rstrip('.')})" if reason else ""
    return f"the files could not be read{why}; {SHAPE}" if reason else f"there is no file; {SHAPE}"


def unknown_field(name: str) -> str:
    """Return what is wrong with a request that has something else than its files, which would go unanswered."""
    return f"there is no field {name[:60]!r}; {SHAPE}"


def named(reasons: Mapping[int, str], files: Sequence[str]) -> dict[int, str]:
    """Return the reasons why files cannot be read, with their names.

    >>> named({1: "is empty"}, ["a.png", "b.png"])
    {1: 'b.png is empty'}
    """
    return {row: f"{files[row]} {reason}" for row, reason in reasons.items()}
