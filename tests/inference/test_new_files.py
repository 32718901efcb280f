"""New files are read as those of the run were, where they need it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import dlrunner
from dlrunner.data.tables.table import read_new_rows
from dlrunner.errors import DataError
from dlrunner.tasks.image.inputs import read_images
from tests.conftest import QUICK, Dlrun

WORDS = ("schön grün", "häßlich rot")
LEARNING = ("data.valid=0.5", "epochs=1", "task.baseline=false", *QUICK)
TEXT = ("data.path=t.csv", "data.text=review", "data.target=kind", "data.min_freq=1", "data.tokenizer=whitespace")


def texts_in_cp1252() -> pd.DataFrame:
    return pd.DataFrame({"review": WORDS * 6, "kind": ["good", "bad"] * 6})


def test_new_texts_are_read_in_the_encoding_and_with_the_separator_of_the_run(here: Path, dlrun: Dlrun) -> None:
    texts_in_cp1252().to_csv("t.csv", sep="^", encoding="cp1252", index=False)
    status, out, err = dlrun("task=text", *TEXT, "data.encoding=cp1252", "data.separator=^", *LEARNING)
    assert status == 0, out + err
    predictor = dlrunner.load("runs/latest")
    expected = predictor.predict(list(WORDS))
    Path("texts").mkdir()
    for row, text in enumerate(WORDS):
        Path("texts", f"{row}.txt").write_text(text, encoding="cp1252" if row else "utf-8")
    for encoding in ("cp1252", "utf-8"):
        pd.DataFrame({"review": WORDS}).assign(nr=0).to_csv("new.csv", sep="^", encoding=encoding, index=False)
        Path("lines.txt").write_text("\n".join(WORDS), encoding=encoding)
        for given in ("new.csv", "lines.txt", "texts"):
            found = predictor.predict(Path(given))
            assert "problem" not in found, (encoding, given)
            assert found["p(good)"].tolist() == expected["p(good)"].tolist(), (encoding, given)


def test_new_texts_in_an_encoding_of_7_bits_are_not_taken_for_utf_8(here: Path, dlrun: Dlrun) -> None:
    words = ("良い 映画", "悪い 映画")
    frame = pd.DataFrame({"review": words * 6, "kind": ["good", "bad"] * 6})
    frame.to_csv("t.csv", sep="^", encoding="iso-2022-jp", index=False)
    status, out, err = dlrun("task=text", *TEXT, "data.encoding=iso-2022-jp", "data.separator=^", *LEARNING)
    assert status == 0, out + err
    predictor = dlrunner.load("runs/latest")
    expected = predictor.predict(list(words))
    Path("texts").mkdir()
    for encoding in ("iso-2022-jp", "utf-8"):
        frame.head(2).to_csv("new.csv", sep="^", encoding=encoding, index=False)
        Path("lines.txt").write_text("\n".join(words), encoding=encoding)
        for row, text in enumerate(words):
            Path("texts", f"{row}.txt").write_text(text, encoding=encoding)
        for given in ("new.csv", "lines.txt", "texts"):
            found = predictor.predict(Path(given))
            assert found["p(good)"].tolist() == expected["p(good)"].tolist(), (encoding, given)


@pytest.mark.parametrize("encoding", ["iso-2022-kr", "hz", "utf-7", "utf-8"])
def test_new_rows_and_lists_in_an_encoding_of_7_bits_are_not_taken_for_utf_8(here: Path, encoding: str) -> None:
    of_run = "hz" if encoding == "utf-8" else encoding
    Path("new.csv").write_text("image,area\n日.png,3\n", encoding=encoding)
    assert read_new_rows("new.csv", encoding=of_run)["image"].tolist() == ["日.png"]
    Path("list.txt").write_text("日.png\n", encoding=encoding)
    Image.new("RGB", (32, 32)).save("日.png")
    assert read_images("list.txt", None, None, {"encoding": of_run}).names == ["日.png"]


def test_new_texts_in_another_encoding_are_refused_with_what_can_be_done(here: Path, dlrun: Dlrun) -> None:
    texts_in_cp1252().to_csv("t.csv", index=False)
    assert dlrun("task=text", *TEXT, *LEARNING)[0] == 0
    predictor = dlrunner.load("runs/latest")
    pd.DataFrame({"review": WORDS}).to_csv("new.csv", encoding="cp1252", index=False)
    with pytest.raises(DataError, match="save it as UTF-8, or train with"):
        predictor.predict(Path("new.csv"))
    Path("lines.txt").write_bytes("one\ngrün\n\n".encode("cp1252"))
    found = predictor.predict(Path("lines.txt"))
    assert "save it as UTF-8" in found["problem"][1]
    assert "1 text(s) are empty" in found.attrs["note"]
    assert "1 of 3 lines are empty (line 3)" in found.attrs["note"]


def test_a_new_list_of_images_is_read_in_the_encoding_of_the_run(here: Path, dlrun: Dlrun) -> None:
    files = [f"grün {row}.png" for row in range(6)]
    for row, name in enumerate(files):
        Image.new("RGB", (32, 32), (40 * row, 0, 0)).save(name)
    table = pd.DataFrame({"file": files, "kind": ["a", "b"] * 3})
    table.to_csv("t.csv", encoding="cp1252", index=False)
    words = ("task=image", "data.path=t.csv", "data.encoding=cp1252", "data.size=32", "model.weights=none")
    status, out, err = dlrun(*words, "model.backbone=squeezenet1_1", *LEARNING)
    assert status == 0, out + err
    predictor = dlrunner.load("runs/latest")
    Path("list.txt").write_text("\n".join(files), encoding="cp1252")
    for given in ("t.csv", "list.txt"):
        found = predictor.predict(given)
        assert "problem" not in found
        assert len(found) == len(files)


def test_the_separator_of_a_run_does_not_bring_its_encoding(here: Path) -> None:
    for encoding in ("utf-8", "cp1252"):
        Path("new.csv").write_text("city^area\nKöln^3\n", encoding=encoding)
        found = read_new_rows("new.csv", separator="^", encoding="cp1252")
        assert found["city"].tolist() == ["Köln"], encoding


def test_a_bad_number_in_a_column_that_looks_like_text_concerns_its_row_alone(here: Path, dlrun: Dlrun) -> None:
    zips = [f"{1000 + 37 * row % 9000:05}" for row in range(60)]  # with leading zeros: text, but named as numbers
    pd.DataFrame({"zip": zips, "price": [float(each) / 100 for each in zips]}).to_csv("t.csv", index=False)
    words = ("data.path=t.csv", "data.target=price", "data.continuous=[zip]", "epochs=1", "task.baseline=false")
    status, out, err = dlrun("task=tabular", *words, *QUICK)
    assert status == 0, out + err
    predictor = dlrunner.load("runs/latest")
    Path("good.csv").write_text("zip\n01037\n02000\n")
    Path("new.csv").write_text("zip\n01037\nabc\n02000\nNA\n")
    found, expected = predictor.predict(Path("new.csv")), predictor.predict(Path("good.csv"))
    assert found["problem"].fillna("").tolist() == ["", "zip is 'abc', which is not a number", "", ""]
    assert found["price"].iloc[[0, 2]].tolist() == expected["price"].tolist()
    assert "zip: 1 missing value(s) replaced by the training median" in found.attrs["note"]
