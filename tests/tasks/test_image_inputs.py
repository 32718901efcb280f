"""Images that a trained model is given: lists and tables of paths, whatever names them, and their columns."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import dlrunner
from dlrunner.data.segmentation.masks import MaskClasses
from dlrunner.errors import ConfigError, DataError
from dlrunner.models.unet import SegmentationDims, UNet
from dlrunner.tasks.image.inputs import read_images
from dlrunner.tasks.segmentation.predictor import SegmentationPredictor
from dlrunner.tasks.text.inputs import read_texts
from tests.conftest import Dlrun
from tests.small_runs import SmallRuns


@pytest.fixture(autouse=True)
def photos(here: Path) -> pd.DataFrame:
    """Three images in photos/, and a table of two of them and a file that does not exist."""
    random = np.random.default_rng(0)
    (here / "photos").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(random.integers(0, 255, (40, 50, 3), np.uint8)).save(here / "photos" / name)
    table = pd.DataFrame({"nr": ["007", "8", "9"], "file": ["photos/a.png", "photos/gone.png", "photos/c"]})
    table.to_csv("new.csv", index=False)
    return table


@pytest.fixture
def segmentation() -> SegmentationPredictor:
    model = UNet(SegmentationDims(2), Path("data"), backbone="squeezenet1_1", channels=32).eval()
    state = {"classes": MaskClasses(["sky", "ground"], [0, 1]).state(), "size": [32, 32], "column": "file"}
    return SegmentationPredictor(state, [model])


def give(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_a_table_of_images_keeps_its_columns_next_to_the_predictions(runs: SmallRuns, photos: pd.DataFrame) -> None:
    predictor = dlrunner.load(runs["pictures"])
    expected = predictor.predict("photos", top=1).set_index("image")
    for given in ("new.csv", photos, photos.to_dict(orient="records")):
        answer = predictor.predict(given, column="file", top=1)
        assert list(answer.columns) == ["row", "nr", "file", "prediction", "p_1", "problem"]
        assert answer["nr"].tolist() == ["007", "8", "9"]
        assert answer["problem"].notna().tolist() == [False, True, False]
        assert "photos/gone.png" in answer["problem"][1]
        assert answer["p_1"].dropna().tolist() == expected["p_1"][["a.png", "c.png"]].tolist()
    assert list(predictor.predict("new.csv", column="file", only=["nr"], top=1).columns[:2]) == ["nr", "prediction"]
    assert list(predictor.predict("photos", only=[], top=1).columns) == ["prediction", "p_1"]
    one = predictor.predict({"nr": 1, "image": "photos/a.png"}, top=1)
    assert one["p_1"].tolist() == expected["p_1"][["a.png"]].tolist()
    opened = pd.DataFrame({"image": [Image.open("photos/a.png")], "nr": [1]})
    assert predictor.predict(opened, top=1)["image"].tolist() == ["image 1"]
    assert predictor.predict("new.csv", column="file", submission=True)["id"].tolist() == ["a", "gone", "c"]


@pytest.mark.parametrize(
    ("text", "words", "columns"),
    [
        ("photos/a.png\n\nphotos/b.png\n", (), ["image", "prediction", "p_1"]),
        ("nr,image\n1,photos/a.png\n2,photos/b.png\n", (), ["row", "nr", "image", "prediction", "p_1"]),
        ("a,b\nphotos/a.png,1\nphotos/b.png,2\n", ("--only", "b"), ["b", "prediction", "p_1"]),
        ("b,a\n1,photos/a.png\n2,photos/b.png\n", ("--column", "a", "--only"), ["prediction", "p_1"]),
    ],
)
def test_paths_or_a_table_of_them_come_from_standard_input(
    text: str,
    words: tuple[str, ...],
    columns: list[str],
    runs: SmallRuns,
    dlrun: Dlrun,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    give(monkeypatch, text)
    status, out, err = dlrun("predict", str(runs["pictures"]), "-", "--top", "1", "--out", "-", *words)
    assert status == 0, err
    answer = pd.read_csv(io.StringIO(out))
    assert list(answer.columns) == columns
    expected = dlrunner.load(runs["pictures"]).predict(["photos/a.png", "photos/b.png"], top=1)
    assert answer["p_1"].tolist() == expected["p_1"].round(4).tolist()


def test_masks_of_a_table_and_of_a_list_are_those_of_the_images(
    segmentation: SegmentationPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = segmentation.predict("photos", masks=Path("expected"))
    answer = segmentation.predict("new.csv", only=["nr"])
    assert list(answer.columns) == ["nr", "mask", "sky", "ground", "problem"]
    assert answer["mask"].tolist()[0] == "new-masks/a.png"
    assert answer["sky"].dropna().tolist() == expected["sky"][[0, 2]].tolist()
    assert Path("new-masks/c.png").read_bytes() == Path("expected/c.png").read_bytes()
    Path("photos/list.txt").write_text("b.png\n")
    give(monkeypatch, "photos/b.png\n")
    for given, folder in (("photos/list.txt", "list-masks"), ("-", "masks")):
        answer = segmentation.predict(given)
        assert answer["mask"].tolist() == [f"{folder}/b.png"]
        assert answer["sky"].tolist() == expected["sky"][[1]].tolist()


@pytest.mark.parametrize("kind", ["classes", "masks"])
def test_a_file_that_is_missing_or_cannot_be_read_is_a_problem_of_its_row(
    kind: str, runs: SmallRuns, segmentation: SegmentationPredictor, here: Path
) -> None:
    predictor: Any = segmentation if kind == "masks" else dlrunner.load(runs["pictures"])
    for name, folder in (("a", "p1"), ("b", "p2")):
        (here / folder).mkdir()
        Path(f"photos/{name}.png").rename(f"{folder}/img.png")
    Path("memory.png").symlink_to("/proc/self/mem")  # reading it is an error of the system, whoever reads
    gone = str(here / "gone.png")
    answer = predictor.predict(pd.DataFrame({"file": ["p1/img.png", "memory.png", gone, "p2/img.png"]}))
    problems = answer["problem"].tolist()
    assert [pd.isna(each) for each in problems] == [True, False, False, True]
    assert "cannot be read (Input/output error)" in problems[1]
    assert f"there is no file {gone}" in problems[2]
    if kind == "masks":
        assert answer["mask"].dropna().tolist() == ["masks/p1/img.png", "masks/p2/img.png"]
    with pytest.raises(DataError, match="cannot be read"):
        predictor.predict("memory.png")


@pytest.mark.parametrize(
    ("given", "column", "words"),
    [
        ("new.csv", None, r"'007'.*its columns are nr, file"),
        ("new.csv", "fil", "did you mean file"),
        ("photos", "file", "photos is not a table"),
        (["photos/a.png"], "file", "is not a table"),
        ("nowhere.csv", None, "there is no file nowhere.csv"),
        ("photos/*.png", None, "there is no file"),
        ([], None, "the list is empty"),
        (7, None, "an int"),
    ],
)
def test_what_is_no_image_is_refused_with_a_sentence(given: Any, column: str | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_images(given, column, None)


def test_the_column_of_the_training_table_is_the_default(dlrun: Dlrun, here: Path) -> None:
    colours = ["red", "blue"] * 6
    for number, colour in enumerate(colours):
        Image.new("RGB", (40, 40), colour).save(f"photos/{number}.png")
    files = [f"photos/{number}.png" for number in range(12)]
    pd.DataFrame({"nr": range(12), "photo": files, "colour": colours}).to_csv("train.csv", index=False)
    words = ("data.path=train.csv", "data.file=photo", "data.target=colour", "data.size=32", "epochs=1")
    net = ("model.backbone=squeezenet1_1", "log.plots=false", "log.report=false")
    status, out, err = dlrun("task=image", *words, *net)
    assert status == 0, out + err
    answer = dlrunner.load("runs/latest").predict("train.csv")
    assert "problem" not in answer
    assert answer["photo"].tolist()[3] == "photos/3.png"


def test_messages_on_standard_input_name_it(runs: SmallRuns, dlrun: Dlrun, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("", "a\0b\n", "file\n"):
        give(monkeypatch, text)
        status, _, err = dlrun("predict", str(runs["pictures"]), "-")
        assert status == 1
        assert "standard input" in err
        assert "table.csv" not in err


def test_a_list_of_dicts_and_something_else_is_refused() -> None:
    for given in ([{"image": "photos/a.png"}, "photos/b.png"], ["photos/b.png", {"image": "photos/a.png"}]):
        with pytest.raises(ConfigError, match="of the list is a str"):
            read_images(given, None, None)
        with pytest.raises(ConfigError, match="of the list is a str"):
            read_texts(given, None, None)


def test_columns_with_numbers_as_names_and_numbers_as_names_of_images(here: Path) -> None:
    Path("photos/a.png").rename("7.png")
    found = read_images(pd.DataFrame({1: [7, 8], 2: [0, 0]}), None, None)
    assert found.names == ["7", "8"]
    assert found.sources[0] == Path("7.png")
    assert read_texts(pd.DataFrame({1: ["a film"]}), None, None).texts == ["a film"]
