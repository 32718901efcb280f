"""A byte order mark is no part of the first word, whether the encoding is found or set."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlrunner.data.texts.dataset import TextData
from dlrunner.tasks.image.inputs import read_images

ENCODINGS = [
    ("utf-8", None),
    ("utf-8", "utf-8"),
    ("utf-16-le", None),
    ("utf-16-le", "utf-16-le"),
    ("utf-16-be", "utf-16"),
]


@pytest.mark.parametrize(("written", "encoding"), ENCODINGS)
@pytest.mark.parametrize("layout", ["lines", "folder"])
def test_the_first_word_of_texts_has_no_mark(here: Path, written: str, encoding: str | None, layout: str) -> None:
    (here / "texts").mkdir()
    path = "lines.txt" if layout == "lines" else "texts"
    for name in ("lines.txt", "texts/1.txt", "texts/2.txt"):
        (here / name).write_bytes("\ufeffhello world\nhello world\n".encode(written))
    table = TextData(here, path=path, valid=0.5, min_freq=1, encoding=encoding).read()
    assert set(table.vocabulary.words) - {"\n"} == {"<unk>", "<pad>", "<eos>", "hello", "world"}


@pytest.mark.parametrize(("written", "encoding"), [("utf-8", None), ("utf-16-le", "utf-16-le")])
def test_the_first_path_of_a_list_has_no_mark(here: Path, written: str, encoding: str | None) -> None:
    (here / "a.png").write_bytes(b"x")
    (here / "list.txt").write_bytes("\ufeffa.png\n".encode(written))
    given = read_images("list.txt", None, None, {"encoding": encoding} if encoding else None)
    assert given.names == ["a.png"]
    assert given.sources[0] is not None
