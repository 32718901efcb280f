"""Tables of texts and labels, and folders of images and texts, as people keep them: nothing shifts, nothing vanishes."""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dlrunner.cli.compose import compose
from dlrunner.cli.conf_paths import with_paths
from dlrunner.data.core.row_locations import RowLocations
from dlrunner.data.core.source import ArchiveOrFolder
from dlrunner.data.core.splitting import TRAIN, VALID
from dlrunner.data.core.target_columns import read_target
from dlrunner.data.images.dataset import ImageData, ImageTable
from dlrunner.data.images.listing import find_image_files
from dlrunner.data.segmentation.dataset import SegmentationData
from dlrunner.data.tables.table import Reading
from dlrunner.data.texts import documents
from dlrunner.data.texts.dataset import TextData
from dlrunner.data.texts.documents import Wanted, find_documents
from dlrunner.data.texts.table import TextTable
from dlrunner.data.texts.tokens import tokenize
from dlrunner.errors import ConfigError, DataError
from dlrunner.tasks.text.inputs import read_texts

PNG = "PNG"


def image(path: str, colour: tuple[int, int, int] = (200, 0, 0), kind: str = PNG) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), colour).save(path, kind)


def pets(folder: str, count: int = 3) -> None:
    """Write images of two classes, all of different colours."""
    for number in range(count):
        image(f"{folder}/cat/{number}.png", (200, number, len(folder)))
        image(f"{folder}/dog/{number}.png", (0, number, 200 + len(folder)))


def read(path: str, **settings: Any) -> ImageTable:
    return ImageData(Path("data"), path=path, **{"size": 32, **settings}).read()


def read_text(path: str, **settings: Any) -> TextTable:
    return TextData(
        Path("data"), path=path, **{"min_freq": 1, "tokenizer": "whitespace", "valid": 0.5, **settings}
    ).read()


# Links


def test_a_training_folder_that_is_a_link_is_trained_on_and_not_the_validation_folder(here: Path) -> None:
    pets("store")
    pets("pets/valid", 2)
    Path("pets/train").symlink_to("../store")
    table = read("pets")
    assert len(table.names) == 6 + 4
    assert [(TRAIN, VALID)[name.startswith("valid/")] for name in table.names] == table.split.tolist()


def test_a_class_and_an_image_that_are_links_are_found(here: Path) -> None:
    pets("store")
    Path("pets/dog").mkdir(parents=True)
    Path("pets/cat").symlink_to(here / "store" / "cat")
    for number in range(3):
        Path(f"pets/dog/{number}.png").symlink_to(f"../../store/dog/{number}.png")
    table = read("pets", valid=0.34)
    assert list(table.names) == [f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(3)]
    assert table.target.classes == ["cat", "dog"]


def test_a_link_to_a_folder_above_is_cut_and_told(here: Path) -> None:
    pets("pets")
    Path("pets/cat/again").symlink_to("..")
    Path("pets/dog/self").symlink_to("self")
    Path("pets/dog/lost.png").symlink_to("nowhere")
    found = find_image_files(ArchiveOrFolder(Path("pets")))
    assert len(found.names) == 6
    assert "cat/again), which is a link to a folder that it is in" in found.notes[0]
    assert "dog/lost.png), which is a link to nothing" in " ".join(found.notes)
    assert set(found.skipped) == {"cat/again", "dog/lost.png", "dog/self"}


def test_a_broken_or_missing_training_folder_is_refused(here: Path) -> None:
    pets("pets/valid")
    with pytest.raises(DataError, match="has valid/ but no train/: validation files would be trained on"):
        read("pets")
    Path("pets/train").symlink_to("nowhere")
    with pytest.raises(DataError, match="train is a link to nothing"):
        read("pets")


def test_links_in_archives_are_not_followed_and_told(here: Path) -> None:
    pets("pets")
    with tarfile.open("pets.tar", "w") as archive:
        archive.add("pets")
        link = tarfile.TarInfo("pets/cat/9.png")
        link.type, link.linkname = tarfile.SYMTYPE, "0.png"
        archive.addfile(link)
    with zipfile.ZipFile("pets.zip", "w") as packed:
        for path in sorted(Path("pets").rglob("*.png")):
            packed.write(path)
        entry = zipfile.ZipInfo("pets/cat/9.png")
        entry.external_attr = 0o120777 << 16
        packed.writestr(entry, "0.png")
    for name in ("pets.tar", "pets.zip"):
        table = read(name, valid=0.34)
        assert len(table.names) == 6
        assert "not read: 1 path (cat/9.png), which is a link in an archive" in table.notes


def test_linked_folders_of_texts_and_masks_are_read(here: Path) -> None:
    for part, count in (("store", 4), ("texts/valid", 2)):
        Path(part).mkdir(parents=True)
        for number in range(count):
            Path(f"{part}/{number}.txt").write_text(f"a text {number}")
    Path("texts/train").symlink_to(here / "store")
    assert read_text("texts", split="auto").split.tolist() == [TRAIN] * 4 + [VALID] * 2
    for number in range(4):
        image(f"photos/{number}.png", (number, 0, 0))
        Path("cells").mkdir(exist_ok=True)
        Path("drawn").mkdir(exist_ok=True)
        Image.fromarray(np.eye(30, 40, dtype=np.uint8)).save(f"drawn/{number}.png")
    Path("cells/images").symlink_to("../photos")
    Path("cells/masks").symlink_to("../drawn")
    assert SegmentationData(Path("d"), path="cells", size=32, valid=0.5).read().names == [
        f"images/{n}.png" for n in range(4)
    ]


# What is in a folder


def test_images_of_other_suffixes_and_without_one_are_read_or_told(here: Path) -> None:
    pets("pets")
    image("pets/cat/a.jfif", (190, 0, 0), "JPEG")
    image("pets/cat/IMG_0001", (191, 0, 0))
    image("pets/dog/b", (0, 0, 190), "WEBP")
    Path("pets/dog/c.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    Path("pets/dog/d").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    for name in ("cat/notes.txt", "README", "BMW", "cat/.DS_Store", "Thumbs.db"):
        Path("pets", name).write_text("BMW drivers")
    found = find_image_files(ArchiveOrFolder(Path("pets")))
    assert {"cat/a.jfif", "cat/IMG_0001", "dog/b"} < set(found.names)
    assert len(found.names) == 6 + 3
    assert found.notes == (
        "not used: 2 .heic images (dog/c.heic, dog/d), which Pillow cannot read here; convert them to JPEG or PNG",
        "not used, not an image: 3 files (BMW, README, cat/notes.txt)",
    )
    assert set(found.notes) <= set(read("pets").notes)
    with zipfile.ZipFile("pets.zip", "w") as packed:
        for path in Path("pets").rglob("*"):
            packed.write(path, path.relative_to("pets"))
    assert find_image_files(ArchiveOrFolder(Path("pets.zip"))).names == found.names


def test_what_a_folder_of_texts_has_besides_is_told(here: Path) -> None:
    Path("texts/__MACOSX").mkdir(parents=True)
    for name in ("1.txt", "2.txt", "a.md", "b.pdf", "__MACOSX/1.txt"):
        Path("texts", name).write_text(f"in {name}")
    table = read_text("texts")
    assert list(table.names) == ["1.txt", "2.txt"]
    assert "not used, not a .txt file: 2 files (a.md, b.pdf)" in table.notes


# Labels


def test_labels_in_one_text_lose_blanks_and_empty_ones_are_none() -> None:
    frame = pd.DataFrame({"tags": ["a; b", "", "b;", " a ;c d", None]})
    target, values = read_target(frame, "tags", "auto", ";", "auto", RowLocations(Path("t.csv")))
    assert target.classes == ["a", "b", "c d"]
    assert values.tolist() == [[1, 1, 0], [0, 0, 0], [0, 1, 0], [1, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize(
    "classes", [["None", "NA", "null", "010", "10", "1", "1.0", "nan"], ["1", "1.0", "2.5", "2.50"]]
)
def test_names_of_classes_are_what_is_written(classes: list[str], here: Path) -> None:
    written = classes * 2
    rows = [f"text {number},{name}" for number, name in enumerate(written)]
    Path("t.csv").write_text("text,kind\n" + "\n".join(rows) + "\n")
    table = read_text("t.csv", labels=True, target="kind", kind="multiclass")
    assert table.target is not None
    assert table.values is not None
    assert [table.target.classes[code] for code in table.values] == written
    for number in range(len(written)):
        image(f"{number}.png", (number, 0, 0))
    rows = [f"{number}.png,{name}" for number, name in enumerate(written)]
    Path("i.csv").write_text("file,kind\n" + "\n".join(rows) + "\n")
    images = read("i.csv")
    assert [images.target.classes[code] for code in images.values] == written


# Texts


def contents(path: str, **wanted: Any) -> list[str]:
    return list(find_documents(Path(path), Wanted(**wanted)).texts())


def test_texts_keep_every_character_in_every_format(here: Path) -> None:
    texts = [" two  blanks ", 'a, b; "c"', "line\nbreak", "NA", "007", "1,5", "ünï ☃"]
    frame = pd.DataFrame({"id": range(len(texts)), "text": texts})
    frame.to_csv("t.csv", index=False)
    frame.to_csv("t.tsv", index=False, sep="\t")
    frame.to_parquet("t.parquet")
    frame.to_json("t.jsonl", orient="records", lines=True)
    frame.to_csv("t.csv.gz", index=False)
    for name in ("t.csv", "t.tsv", "t.parquet", "t.jsonl", "t.csv.gz"):
        assert contents(name, column="text") == texts, name
    Path("parts").mkdir()
    frame[:3].to_csv("parts/1.csv", index=False)
    frame[3:].to_csv("parts/2.csv", index=False)
    assert contents("parts", column="text") == contents("parts/*.csv", column="text") == texts


def test_a_query_selects_texts(here: Path) -> None:
    pd.DataFrame({"text": ["NA", "two", "three"], "n": [1, 2, 3]}).to_parquet("t.parquet")
    data = TextData(
        here, query="select text from 't.parquet' where n < 3", min_freq=1, valid=0.5, tokenizer="whitespace"
    )
    assert list(data.read().names) == ["row 1", "row 2"]
    assert list(data._documents().texts()) == ["NA", "two"]
    with pytest.raises(ConfigError, match="set one of both"):
        TextData(here, query="select 1", path="t.parquet")


def test_a_schema_and_the_formats_of_numbers_are_those_of_tables_of_texts_too(here: Path) -> None:
    rows = "".join(f"{n:03d};{'ab'[n % 2]};{n % 2},0;1.234,5;0{n % 9 + 1}.02.2020\n" for n in range(20))
    Path("t.csv").write_text(f"text;y;z;x;day\n{rows}")
    columns = (
        "{name: text, type: integer}, {name: y, type: text}, {name: z, type: number, decimal: ','}, "
        "{name: x, type: number, decimal: ',', thousands: '.'}, {name: day, type: date, format: '%d.%m.%Y'}"
    )
    Path("s.yaml").write_text(f"columns: [{columns}]\n")
    common: dict[str, Any] = {"labels": True, "target": "y", "min_freq": 1, "tokenizer": "whitespace", "valid": 0.5}
    settings: list[dict[str, Any]] = [
        {"schema": "s.yaml", "text": "text"},
        {"decimal": ",", "thousands": ".", "text": "text"},
    ]
    for given in settings:
        found = TextData(here, path="t.csv", **common, **given)._documents()
        assert list(found.texts())[:2] == ["000", "001"], "texts keep every character"
        assert found.table["z"].tolist()[:2] == [0, 1]
        assert found.table["x"].tolist()[:2] == [1234.5, 1234.5]
        assert found.table["day"].dt.month.unique().tolist() == [2]
    Path("t.csv").write_text(f"text;y;z;x;day\n{rows}9;a;0,0;much;01.02.2020\n")
    Path("s.yaml").write_text("columns: [{name: text, type: text}]\n")
    with pytest.raises(ConfigError, match=r"data\.schema: s\.yaml has no column y"):
        TextData(here, path="t.csv", schema="s.yaml", **common).read()
    Path("lines.txt").write_text("one\ntwo\n")
    with pytest.raises(ConfigError, match=r"data\.decimal: .*lines\.txt is not a table"):
        TextData(here, path="lines.txt", decimal=",").read()


def test_a_last_text_that_reads_total_stays(here: Path) -> None:
    Path("t.csv").write_text("text,n\none,1\ntwo,2\nTotal,3\n")
    assert contents("t.csv") == ["one", "two", "Total"]


def test_texts_come_from_standard_input(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\n\ntwo\n")))
    documents._standard_input.cache_clear()
    given = read_texts("-", None, None)
    assert given.texts == ["one", "", "two"]
    assert given.problems == [(1, "the text is empty")]
    documents._standard_input.cache_clear()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"n,text\n1,one\n2,two\n")))
    assert read_texts("-", "text", None).texts == ["one", "two"]
    documents._standard_input.cache_clear()


@pytest.mark.parametrize("content", [b"", b"\n", b"a\0b\n"])
def test_messages_on_texts_of_standard_input_name_it(
    content: bytes, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    documents._standard_input.cache_clear()
    reason = "standard input, line 1 contains a NUL" if b"\0" in content else "standard input is empty"
    with pytest.raises(DataError, match=f"^{reason}"):
        TextData(here, path="-").read()
    documents._standard_input.cache_clear()


def test_lines_that_are_all_damaged_are_not_called_empty(here: Path) -> None:
    Path("lines.txt").write_bytes(b"a\0b\n")
    assert read_texts(Path("lines.txt"), None, None).problems == [(0, "contains a NUL character")]
    with pytest.raises(DataError, match="line 1 contains a NUL character; no other line is left"):
        TextData(here, path="lines.txt", skip_bad=True).read()


def test_a_missing_text_is_refused_with_its_row_or_left_out_and_no_row_shifts(here: Path) -> None:
    Path("t.csv").write_text('text,kind\none,a\n"",b\nthree,a\nfour,\nfive,b\nsix,b\n')
    settings = {"labels": True, "target": "kind"}
    with pytest.raises(DataError, match="row 3: the text is missing; 2 such row"):
        read_text("t.csv", **settings)
    table = read_text("t.csv", skip_bad=True, **settings)
    assert list(table.names) == ["row 2", "row 4", "row 6", "row 7"]
    assert table.target is not None
    assert table.values is not None
    assert [table.target.classes[code] for code in table.values] == ["a", "a", "b", "b"]
    words = [[table.vocabulary.words[code] for code in table.document(row)] for row in table.rows(TRAIN)]
    assert words == [
        [{2: "one", 4: "three", 6: "five", 7: "six"}[int(table.names[row][4:])]] for row in table.rows(TRAIN)
    ]
    assert any("2 of 6 rows are left out (data.skip_bad)" in note for note in table.notes)
    given = read_texts(Path("t.csv"), "text", None)
    assert given.texts == ["one", "", "three", "four", "five", "six"]
    assert given.problems == [(1, "row 3: the text is missing")]


def test_lines_that_are_empty_or_not_text_shift_no_line(here: Path) -> None:
    Path("t.txt").write_bytes(b"one\n\ncaf\xe9\nfour\na\0b\nsix\n")
    with pytest.raises(DataError, match=r"line 3 is not text in UTF-8: .*2 such line"):
        read_text("t.txt")
    table = read_text("t.txt", skip_bad=True)
    assert list(table.names) == ["line 1", "line 2", "line 4", "line 6"]
    assert table.lengths.tolist() == [1, 0, 1, 1]
    assert any("1 of 4 lines are empty (line 2)" in note for note in table.notes)
    given = read_texts(Path("t.txt"), None, None)
    assert given.texts == ["one", "", "", "four", "", "six"]
    assert [row for row, _ in given.problems] == [1, 2, 4]
    Path("t.txt").write_bytes("café\nthé\n".encode("cp1252"))
    assert contents("t.txt", reading=Reading(encoding="cp1252")) == ["café", "thé"]


def test_files_that_are_not_texts_are_left_out_and_counted(here: Path) -> None:
    Path("texts").mkdir()
    for name, content in (("1", b"fine"), ("2", b"caf\xe9"), ("3", b"good"), ("4", b"\0")):
        Path(f"texts/{name}.txt").write_bytes(content)
    with pytest.raises(DataError, match=r"2.txt is not text in UTF-8"):
        read_text("texts")
    table = read_text("texts", skip_bad=True)
    assert list(table.names) == ["1.txt", "3.txt"]
    assert any("2 of 4 files are left out: 2.txt is not text" in note for note in table.notes)
    given = read_texts(Path("texts"), None, None)
    assert given.texts == ["fine", "", "good", ""]
    assert [row for row, _ in given.problems] == [1, 3]


def test_new_texts_may_stand_in_a_test_folder_alone(here: Path) -> None:
    Path("new/test").mkdir(parents=True)
    Path("new/test/1.txt").write_text("one")
    assert read_texts(Path("new"), None, None).texts == ["one"]
    with pytest.raises(DataError, match="has test/ but no train/"):
        read_text("new")


# Label files and masks


def test_rows_without_file_or_label_are_named_or_left_out(here: Path) -> None:
    for number in range(5):
        image(f"{number}.png", (number, 0, 0))
    Path("l.csv").write_text("file,kind\n0.png,a\n1.png,\n,b\n3.png,b\n4.png,a\n")
    with pytest.raises(DataError, match="row 3: the label kind is missing; 2 such row"):
        read("l.csv")
    table = read("l.csv", skip_bad=True, valid=0.34)
    assert list(table.names) == ["0.png", "3.png", "4.png"]
    assert table.values.tolist() == [0, 1, 0]
    assert any("2 of 5 rows are left out" in note for note in table.notes)


def test_file_names_are_taken_as_they_are(here: Path) -> None:
    names = ["a b.png", "c,d.png", "é=[1].png", " e .png", "{f}.png", "g'h.png"]
    for number, name in enumerate(names):
        image(f"p/{name}", (number, 0, 0))
    frame = pd.DataFrame({"file": [f"p/{name}" for name in names], "kind": ["x", "y"] * 3})
    frame.to_csv("l.csv", index=False)
    frame.to_csv("l.tsv", index=False, sep="\t")
    frame.to_json("l.jsonl", orient="records", lines=True)
    frame.to_parquet("l.parquet")
    for table in ("l.csv", "l.tsv", "l.jsonl", "l.parquet"):
        assert list(read(table, valid=0.34).names) == frame["file"].tolist(), table


def test_a_query_selects_images_and_their_labels(here: Path) -> None:
    for number in range(6):
        image(f"photos/{number}.png", (number, 0, 0))
    rows = "".join(f"{n},{number}.png,1.1{'0' * (number % 2)}\n" for number, n in enumerate([1, 2, 3, 4, 5, 6]))
    Path("l.csv").write_text(f"n,file,kind\n{rows}")
    for query in (
        "select file, kind from 'l.csv' where n > 2",
        "select file as f, kind as k, n from 'l.csv' where n > 2",
    ):
        table = read("photos", query=query, valid=0.5)
        assert list(table.names) == ["2.png", "3.png", "4.png", "5.png"], query
        assert [table.target.classes[code] for code in table.values] == ["1.1", "1.10"] * 2, query
    named = read("photos", query="select * from 'l.csv' where n > 2", file="file", target="kind", valid=0.5)
    assert list(named.names) == ["2.png", "3.png", "4.png", "5.png"]
    assert ImageData(Path("d"), path="photos", query=query).identity() == (
        ImageData(Path("d"), path="photos", query=query).identity()
    )
    for settings, message in (
        ({"query": "select file, kind from 'none.csv'"}, r"data\.query: there is no file .*none\.csv"),
        ({"query": "drop table x"}, r"data\.query: must be one SELECT"),
        ({"query": "select file from 'l.csv'"}, "data.query needs a column of files and one of labels"),
        (
            {"query": "select file, kind from 'l.csv'", "target": "sort"},
            r"data\.target: data\.query has no column 'sort'",
        ),
        ({"query": "select 'no.png', kind from 'l.csv'"}, "none of its 6 files exists"),
        ({"query": "select file, kind from 'l.csv' where kind > 5"}, "a text meets a number; of text are: file, kind"),
        ({"query": "select file, null as kind from 'l.csv'"}, "data.query, row 1: the label kind is missing"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            read("photos", **settings)
    with pytest.raises(ConfigError, match=r"data\.path: .*l\.csv is not a folder; with data\.query it is the folder"):
        read("l.csv", query="select 1")


def test_a_query_selects_images_and_their_masks(here: Path) -> None:
    Path("cells/masks").mkdir(parents=True)
    for number in range(4):
        image(f"cells/{number}.png", (number, 0, 0))
        Image.fromarray(np.eye(30, 40, dtype=np.uint8)).save(f"cells/masks/{number}.png")
    Path("t.csv").write_text("n;a;b\n" + "".join(f"{n};{n}.png;masks/{n}.png\n" for n in range(4)))
    query = "select a as image, b as mask from 't.csv' where n > 0"
    data = SegmentationData(Path("d"), path="cells", query=query, size=32, valid=0.34)
    assert data.read().names == ["1.png", "2.png", "3.png"]
    named = SegmentationData(
        Path("d"), path="cells", query="select * from 't.csv'", images="a", masks="b", size=32, valid=0.5
    )
    assert named.read().names == [f"{n}.png" for n in range(4)]
    for query, message in (
        ("select a as image from 't.csv'", r"data\.masks: data\.query has no column 'mask'"),
        ("select 'x' || a as image, b as mask from 't.csv'", r"data\.query, row 1: there is no file .*x0\.png"),
    ):
        with pytest.raises((ConfigError, DataError), match=message):
            SegmentationData(Path("d"), path="cells", query=query, size=32).read()
    with pytest.raises(ConfigError, match=r"data\.query: synthetic data"):
        SegmentationData(Path("d"), source="synthetic", query="select 1")


def test_masks_without_image_and_rows_without_file_are_left_out_where_that_is_wanted(here: Path) -> None:
    for number in range(4):
        image(f"cells/images/{number}.png", (number, 0, 0))
        Path("cells/masks").mkdir(exist_ok=True)
        Image.fromarray(np.eye(30, 40, dtype=np.uint8)).save(f"cells/masks/{number}.png")
    Path("cells/masks/2.png").unlink()
    Path("cells/images/0.png").unlink()
    with pytest.raises(DataError, match=r"2.png has no mask"):
        SegmentationData(Path("d"), path="cells", size=32).read()
    table = SegmentationData(Path("d"), path="cells", size=32, skip_bad=True, valid=0.5).read()
    assert table.names == ["images/1.png", "images/3.png"]
    rows = [f"images/{n}.png,masks/{n}.png" for n in (1, 2, 3)] + ["images/1.png,"]
    Path("cells/t.csv").write_text("image,mask\n" + "\n".join(rows) + "\n")
    table = SegmentationData(Path("d"), path="cells/t.csv", size=32, skip_bad=True, valid=0.5).read()
    assert table.names == ["images/1.png", "images/3.png"]


# Long texts and odd names


def test_a_text_of_five_megabytes_is_one_row_and_is_cut_for_classification(here: Path) -> None:
    long = "word and " * 600_000
    Path("t.csv").write_text(f"text,kind\n{long},a\nb c,b\nd,a\n")
    assert [len(text) for text in contents("t.csv", column="text")] == [len(long), 3, 1]
    Path("t.txt").write_text(f"x\n{long}\ny\n")
    assert [len(text) for text in contents("t.txt")] == [1, len(long), 1]
    table = read_text("t.csv", labels=True, target="kind", max_tokens=1000)
    assert table.lengths.tolist() == [1000, 2, 1]
    assert any("1 text(s) have more than 1,000 tokens" in note for note in table.notes)
    assert read_text("t.txt").lengths.tolist() == [1, 1_200_000, 1], "a language model reads all of it"


def test_tokens_are_cut_within_each_document() -> None:
    tokens, num_cut = tokenize(["a b c", "", "d", "e f"], "whitespace", True).cut(2)
    ends = [0, *tokens.ends]
    found = [[tokens.words[code] for code in tokens.codes[a:b]] for a, b in pairwise(ends)]
    assert found == [["a", "b"], [], ["d"], ["e", "f"]]
    assert num_cut == 1


def test_a_pattern_of_text_files_is_refused_with_what_to_do(here: Path) -> None:
    Path("a.txt").write_text("x")
    with pytest.raises(ConfigError, match="give the folder of the texts"):
        read_text("*.txt")


ODD = ["a,b.txt", "a=b.txt", "a[1].txt", "a{b}.txt", "a b.txt", "it's.txt", 'q"q.txt', "ünï ☃.txt", "a#b.txt", "${z}.txt", "back\\slash.txt", "~x.txt"]  # fmt: skip


def test_a_name_that_hydra_cannot_read_is_quoted_or_answered_with_how_to_quote_it(here: Path) -> None:
    assert compose(["task=lm", "data.path=a[1].txt"])["data"]["path"] == "a[1].txt"
    with pytest.raises(ConfigError, match="goes in quotation marks"):
        compose(["task=lm", "data.path=[a,'b.txt"])


@pytest.mark.parametrize("name", ODD)
def test_a_file_of_any_name_is_found_without_quotes_of_hydra(name: str, here: Path) -> None:
    Path(name).write_text("one two\n" * 10)
    (word,) = with_paths([f"data.path={'./' * name.startswith('~')}{name}"])
    given = compose(["task=lm", word])["data"]["path"]
    assert contents(given) == ["one two"] * 10
