"""Runs that dlrunner 0.1.0 has left, kept as they were: later versions show, compare and answer from them.

What it answered stands in old_runs/expected.json, by the names of `QUESTIONS`; old_runs/README.md tells how both were made.
"""

from __future__ import annotations

import csv
import json
import lzma
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pytest

import dlrunner
from dlrunner.cli import main
from dlrunner.renamed import present_summary
from tests.conftest import QUICK, Dlrun

HERE = Path(__file__).parent / "old_runs"
RUNS = sorted(f"{path.parent.relative_to(HERE)}" for path in (HERE / "runs").glob("*/*/config.yaml"))
SWEEP = next(f"{path.relative_to(HERE)}" for path in (HERE / "runs" / "sweeps").iterdir())
NET, ENSEMBLE = "collab/*model=net", "collab/*ensemble=2"
DOT_SEEDS = ("collab/*=dot,*seed=0", "collab/*=dot,*seed=1")
SEEDS = ("collab/*dot_bias,*seed=0", "collab/*dot_bias,*seed=1")

QUESTIONS: dict[str, tuple[str, ...]] = {
    "pairs": ("predict", NET, "pairs.csv"),
    "pairs by the best checkpoint": ("predict", NET, "pairs.csv", "--checkpoint", "best.pt"),
    "pairs by an ensemble": ("predict", ENSEMBLE, "pairs.csv"),
    "pairs by dot products": ("predict", DOT_SEEDS[0], "pairs.csv"),
    "a known user": ("predict", SEEDS[0], "--user", "1", "--top", "3"),
    "a new user": ("predict", SEEDS[0], "--ratings", "mine.csv", "--top", "3"),
    "similar items": ("predict", SEEDS[0], "--similar", "i3", "--top", "3"),
    "films": ("predict", "movielens/", "--user", "1", "--top", "3"),
    "flats": ("predict", "tabular/", "new.csv", "--only", "nr"),
    "sales": ("predict", "rossmann/", "test.csv", "--only", "Id"),
    "texts": ("predict", "text/", "reviews.csv", "--only"),
    "a review": ("predict", "imdb-sentiment/", "lozufo kivi solomu vabedo zani bolu"),
    "perplexity": ("predict", "lm/", "the film was great and the plot was poor"),
    "perplexity of a review": ("predict", "imdb-lm/", "lozufo kivi solomu vabedo zani bolu"),
    "shapes": ("predict", "image/", "shapes/wide"),
    "breeds": ("predict", "dogbreeds/", "shapes/wide", "--top", "3"),
    "next words": ("generate", "lm/", "the film was", "--next", "3"),
    "drawn words": ("generate", "lm/", "the film was", "--words", "8", "--top-k", "5", "--seed", "1"),
    "likeliest words": ("generate", "imdb-lm/", "lozufo kivi", "--words", "8"),
    "the likeliest text": ("generate", "imdb-lm/", "lozufo kivi", "--words", "8", "--beams", "3"),
    "what speaks for a shape": ("explain", "image/", "shapes/wide/2.png", "--out", "heat.png"),
    "what speaks for a breed": ("explain", "dogbreeds/", "shapes/wide/2.png", "--out", "heat.png"),
}

IN_PYTHON: dict[str, Callable[[Any], pd.DataFrame]] = {
    "pairs": lambda predictor: predictor.predict(pd.read_csv("pairs.csv")),
    "pairs by an ensemble": lambda predictor: predictor.predict(pd.read_csv("pairs.csv")),
    "a known user": lambda predictor: predictor.recommend(1, top=3),
    "similar items": lambda predictor: predictor.similar("i3", top=3),
    "flats": lambda predictor: predictor.predict(pd.read_csv("new.csv"), only=["nr"]),
    "sales": lambda predictor: predictor.predict(pd.read_csv("test.csv", dtype={"StateHoliday": str}), only=["Id"]),
    "a review": lambda predictor: predictor.predict(QUESTIONS["a review"][2]),
    "perplexity": lambda predictor: predictor.predict(QUESTIONS["perplexity"][2]),
    "shapes": lambda predictor: predictor.predict(sorted(Path("shapes/wide").iterdir())),
}

Said = Callable[[list[str]], str]
"""The command line: from its words to what it prints."""
Rows = list[list[Any]]


def unpack(folder: Path) -> None:
    """Copy runs and inputs into a folder, with the weights as they were."""
    shutil.copytree(HERE / "runs", folder / "runs")
    shutil.copytree(HERE / "inputs", folder, dirs_exist_ok=True)
    for packed in (folder / "runs").rglob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
        packed.unlink()


def run_of(place: str) -> str:
    """Return the only run that a place, `task/` or a pattern, means."""
    (found,) = Path("runs").glob(f"{place}*")
    return f"{found}"


def values_of(answer: pd.DataFrame) -> Rows:
    """Return the first rows of an answer as plain values, without what is worded or names a file."""
    answer.drop(columns=["note", "text", "picture", "image"], errors="ignore").head(5).to_csv("values.csv", index=False)
    with Path("values.csv").open(newline="") as file:
        return [[_plain(cell) for cell in row] for row in list(csv.reader(file))[1:]]


def _plain(cell: str) -> float | str:
    try:
        return float(cell)
    except ValueError:
        return cell


def answer(question: str, said: Said) -> Rows:
    """Ask the command line: a table, or what it prints, as rows of words and numbers."""
    verb, place, *words = QUESTIONS[question]
    if verb == "predict":
        said([verb, run_of(place), *words, "--out", "answer.csv"])
        return values_of(pd.read_csv("answer.csv"))
    printed = said([verb, run_of(place), *words])
    if verb == "explain":  # the last line says where the heat map is
        assert Path("heat.png").stat().st_size > 1000
        printed = "\n".join(line for line in printed.splitlines() if "%" in line)
    return [[_plain(word.strip("'%")) for word in line.split()] for line in printed.strip().splitlines()]


def write_expected() -> None:
    """Write down what this version answers: `make.sh` has it done by the one that made the runs."""
    import contextlib
    import io

    def said(words: list[str]) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert main(words) == 0
        return printed.getvalue()

    with TemporaryDirectory() as folder, contextlib.chdir(folder):
        unpack(Path(folder))
        rows = {question: answer(question, said) for question in QUESTIONS}
    lines = [f"{json.dumps(question)}: {json.dumps(found, ensure_ascii=False)}" for question, found in rows.items()]
    (HERE / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old")
    unpack(folder)
    return folder


@pytest.fixture(autouse=True)
def there(here: Path, unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(unpacked)
    for written in ("answer.csv", "groups.csv", "heat.png", "report.html", "values.csv"):
        Path(written).unlink(missing_ok=True)


@pytest.fixture(scope="module")
def expected() -> dict[str, Rows]:
    found: dict[str, Rows] = json.loads((HERE / "expected.json").read_text())
    return found


@pytest.fixture
def said(dlrun: Dlrun) -> Said:
    """Run the command line, which must succeed, and return what it printed."""

    def run(words: list[str]) -> str:
        status, out, err = dlrun(*words)
        assert status == 0, out + err
        return out

    return run


def same(found: Rows, expected: Rows) -> None:
    assert len(found) == len(expected) > 0
    for row, wanted in zip(found, expected, strict=True):
        assert row == [pytest.approx(each, rel=1e-5, abs=1e-4) if isinstance(each, float) else each for each in wanted]


def summary_of(run: str) -> dict[str, Any]:
    return present_summary(json.loads(Path(run, "summary.json").read_text()))


@pytest.mark.parametrize("question", QUESTIONS)
def test_an_old_run_answers_as_it_did(question: str, expected: dict[str, Rows], said: Said) -> None:
    same(answer(question, said), expected[question])


@pytest.mark.parametrize("question", IN_PYTHON)
def test_an_old_run_answers_in_python_as_it_did(question: str, expected: dict[str, Rows]) -> None:
    predictor = dlrunner.load(run_of(QUESTIONS[question][1]))
    same(values_of(IN_PYTHON[question](predictor)), expected[question])


@pytest.mark.parametrize("run", RUNS)
def test_an_old_run_is_shown_reported_and_loaded(run: str, said: Said) -> None:
    summary = summary_of(run)
    name, value = summary["metric"]["name"], summary["metric"]["value"]
    shown = said(["show", run])
    assert f"{name} {value:.4f}" in shown
    assert all(finding["flag"] in shown for finding in summary["audit"])
    assert "tiny" not in run or "reached" in shown

    said(["report", run, "--out", "report.html"])
    page = Path("report.html").read_text()
    assert f"{value:.4f}" in page
    assert summary["data"]["name"] in page
    drawn = [path.stem for path in Path(run).glob("plots/*.png") if path.stem != "losses"]  # a chart of the page's own
    assert page.count("data:image/png") == len(drawn)

    predictor = dlrunner.load(run)
    assert predictor.metrics[name] == value
    assert len(predictor.models) == (2 if "ensemble" in run else 1)
    assert len(predictor.history) == predictor.config["epochs"] * len(predictor.models)
    if Path(run, "predictions.csv").exists():
        assert len(predictor.predictions) > 2


def test_an_old_report_keeps_its_texts(said: Said) -> None:
    run = run_of("text/")
    kept = json.loads(Path(run, "report.json").read_text())
    texts = [text for texts in kept["passages"].values() for text in texts]
    said(["report", run, "--out", "report.html"])
    page = Path("report.html").read_text()
    assert len(texts) > 1
    assert all(told in page for told in (*kept["passages"], *kept["notes"], *(text["title"] for text in texts)))


def test_the_runs_of_an_old_sweep_are_compared_and_reported(said: Said) -> None:
    runs = [run_of(place) for place in (*SEEDS, *DOT_SEEDS)]
    values = [summary_of(run)["metric"]["value"] for run in runs]
    for words in ([SWEEP], runs):
        said(["compare", *words, "--csv", "groups.csv"])
        table = pd.read_csv("groups.csv")
        assert table["model"].tolist() == ["dot_bias", "dot"]
        assert table["n"].tolist() == [2, 2]
        assert table["valid/rmse"].tolist() == pytest.approx([sum(values[:2]) / 2, sum(values[2:]) / 2], abs=1e-5)
    said(["report", SWEEP, "--out", "report.html"])
    page = Path("report.html").read_text()
    assert all(word in page for word in ("dot_bias", *(f"{value:.4f}" for value in values)))


def test_two_seeds_are_compared_and_differ_in_nothing_else(said: Said) -> None:
    runs = [run_of(place) for place in SEEDS]
    values = [summary_of(run)["metric"]["value"] for run in runs]
    assert f"{sum(values) / 2:.4f}" in said(["compare", *runs])
    told = said(["diff", *runs])
    assert re.search(r"^settings +A +B *\nseed +0 +1 *\n *\n", told, re.MULTILINE)
    assert "epoch 1" in told


@pytest.mark.parametrize("place", ["movielens/", "image/"])
def test_runs_of_different_tasks_differ_in_what_was_typed(place: str, said: Said) -> None:
    told = said(["diff", run_of(SEEDS[0]), run_of(place)])
    assert "my.csv" in told
    assert "batch_size" in told


def test_an_old_run_is_compared_with_the_same_settings_of_today(here: Path, said: Said) -> None:
    old = run_of(SEEDS[0])
    asked = ("task=collab", "data.path=my.csv", "model=dot_bias", "model.factors=4", "optim.lr=0.05", "epochs=4")
    defaults = ("batch_size=64", "model.start_at_mean=false", "optim.weight_decay=0.1")  # of then
    said([*asked, *defaults, *QUICK, f"runs_dir={here}"])
    new = f"{(here / 'latest').resolve()}"
    assert summary_of(new)["final"] == pytest.approx(summary_of(old)["final"], abs=1e-5)
    assert "settings: the same" in said(["diff", old, new])
    said(["compare", old, new, "--csv", "groups.csv"])
    assert len(pd.read_csv("groups.csv")) == 1  # a setting that differed would part them


def test_old_claims_are_reported(said: Said) -> None:
    said(["report", "runs/claims/tiny", "--out", "report.html"])
    page = Path("report.html").read_text()
    assert all(word in page for word in ("tiny", "1.0663", "reached"))


def test_the_encoder_of_an_old_language_model_is_taken(here: Path, said: Said) -> None:
    encoder = f"model.encoder='{run_of('lm/')}'"
    words = ("task=text", "data.path=reviews.csv", "data.text=review", "data.target=sentiment", "task.baseline=false")
    said([*words, "model=text_classifier", encoder, "epochs=1", *QUICK, f"runs_dir={here}"])
    assert summary_of(f"{here}/latest")["status"] == "done"
