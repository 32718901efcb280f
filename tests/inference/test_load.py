"""Finished runs in Python: the same predictions as on the command line."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

import dlrunner
from dlrunner.errors import ConfigError, DataError, RunError
from tests.conftest import QUICK, Dlrun
from tests.inference.test_predictors import PREDICTORS
from tests.small_runs import SmallRuns, new_flats
from tests.test_own_task import PREDICTING, add_task


def known_words(run: Path, number: int) -> str:
    words = json.loads((run / "vocabulary.json").read_text())
    return " ".join([word for word in words if word.isalpha()][:number])


def from_command_line(dlrun: Dlrun, *words: str, verb: str = "predict") -> pd.DataFrame:
    status, out, err = dlrun(verb, *words, "--out", "answer.csv")
    assert status == 0, out + err
    return pd.read_csv("answer.csv")


def same(python: pd.DataFrame, command: pd.DataFrame, leaving: str | None = None) -> None:
    """Compare tables as CSV stores them; names of texts and images may differ."""
    python.to_csv("python.csv", index=False)
    found = pd.read_csv("python.csv")
    assert len(found) > 1
    left_out = [leaving] if leaving else []
    pd.testing.assert_frame_equal(found.drop(columns=left_out), command.drop(columns=left_out), check_exact=True)


def test_importing_the_package_imports_neither_torch_nor_pandas() -> None:
    script = "import sys, dlrunner; dir(dlrunner); print(sorted({'torch', 'pandas', 'hydra'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert {"load", "load_sweep", "LoadedRun", "Predictor", "__version__"} <= set(dir(dlrunner))
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        dlrunner.lod  # noqa: B018


@pytest.mark.parametrize("kind", ["ratings", "ratings by net", "ratings by dot_bias", "several of ratings"])
def test_ratings_are_predicted_as_on_the_command_line(kind: str, runs: SmallRuns, dlrun: Dlrun) -> None:
    run, predictor = runs[kind], dlrunner.load(runs[kind])
    seen = predictor.predictions
    pairs = pd.DataFrame({"user": [*seen["user"][:20], 10**9], "item": [*seen["item"][:20], 31]})
    before = pairs.copy()
    pairs.to_csv("pairs.csv", index=False)
    answer = predictor.predict(pairs)
    same(answer, from_command_line(dlrun, str(run), "pairs.csv"))
    pd.testing.assert_frame_equal(pairs, before)  # a table passed in is not modified
    assert answer["note"].iloc[20].startswith("unknown user")

    user, item = int(seen["user"][0]), int(seen["item"][0])
    same(predictor.recommend(user, top=4), from_command_line(dlrun, str(run), "--user", str(user), "--top", "4"))
    same(predictor.similar(item, top=4), from_command_line(dlrun, str(run), "--similar", str(item), "--top", "4"))
    same(
        predictor.recommend(user, top=4), from_command_line(dlrun, str(run), str(user), "--top", "4", verb="recommend")
    )
    same(predictor.similar(item, top=4), from_command_line(dlrun, str(run), str(item), "--top", "4", verb="similar"))
    mine = pd.DataFrame({"item": seen["item"][:3], "rating": [4.5, 2.0, 3.0]})
    mine.to_csv("mine.csv", index=False)
    same(
        predictor.recommend(ratings=mine, top=4),
        from_command_line(dlrun, str(run), "--ratings", "mine.csv", "--top", "4"),
    )


@pytest.mark.parametrize("kind", ["numbers", "classes", "labels"])
def test_tables_are_predicted_as_on_the_command_line(kind: str, runs: SmallRuns, dlrun: Dlrun) -> None:
    rows = new_flats()
    rows.to_csv("new.csv", index=False)
    answer = dlrunner.load(runs[kind]).predict(rows)
    same(answer, from_command_line(dlrun, str(runs[kind]), "new.csv"))
    assert re.search(r"city: 1 row.*\(Rom\)", answer.attrs["note"])
    pd.testing.assert_frame_equal(rows, new_flats())


def test_predictions_keep_the_index_of_their_rows(runs: SmallRuns) -> None:
    rows, predictor = new_flats(), dlrunner.load(runs["numbers"])
    some = rows[rows["city"] == "Ulm"].sample(frac=1, random_state=0)
    answer = predictor.predict(some)
    assert answer.index.tolist() == some.index.tolist()
    assert answer["nr"].tolist() == some["nr"].tolist()
    complete = predictor.predict(rows)
    pd.testing.assert_series_equal(answer["price"], complete["price"].loc[some.index], check_exact=False, rtol=1e-5)
    assert predictor.predict(rows, only=["rooms"]).columns.tolist() == ["rooms", "price"]


def test_sales_are_predicted_as_on_the_command_line(runs: SmallRuns, dlrun: Dlrun) -> None:
    rows = pd.DataFrame(
        {
            "Id": [1, 2, 3], "Store": [1, 2, 1], "DayOfWeek": [4, 5, 7], "Open": [1, 1, 0], "Promo": [1, 1, 0],
            "Date": ["2015-09-17", "2015-09-18", "2015-09-20"], "StateHoliday": ["0"] * 3, "SchoolHoliday": [0, 0, 1],
        }
    )  # fmt: skip
    before = rows.copy()
    rows.to_csv("test.csv", index=False)
    answer = dlrunner.load(runs["sales"]).predict(rows)
    same(answer, from_command_line(dlrun, str(runs["sales"]), "test.csv"))
    assert answer["Sales"].iloc[2] == 0
    pd.testing.assert_frame_equal(rows, before)


def test_images_are_classified_as_on_the_command_line(runs: SmallRuns, dlrun: Dlrun, here: Path) -> None:
    random = np.random.default_rng(0)
    (here / "few").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(random.integers(0, 255, (40, 50, 3), np.uint8)).save(here / "few" / name)
    predictor = dlrunner.load(runs["pictures"])
    files = sorted((here / "few").iterdir())
    answer = predictor.predict(files, top=3)
    same(answer, from_command_line(dlrun, str(runs["pictures"]), "few", "--top", "3"), leaving="image")
    assert answer["image"].tolist() == list(map(str, files))
    with Image.open(files[1]) as opened:
        mixed = predictor.predict([str(files[0]), opened], top=3)
        assert opened.size == (50, 40)
    pd.testing.assert_frame_equal(mixed.drop(columns="image"), answer.iloc[:2].drop(columns="image"))
    assert mixed["image"].tolist() == [str(files[0]), "image 2"]
    same(
        predictor.predict(files[0], top=3), from_command_line(dlrun, str(runs["pictures"]), str(files[0]), "--top", "3")
    )
    same(predictor.predict("few", top=3), from_command_line(dlrun, str(runs["pictures"]), "few", "--top", "3"))
    printed = predictor.explain(files[0], out="python.png")
    assert dlrun("explain", str(runs["pictures"]), str(files[0]))[1] == f"{printed.replace('python', 'a-explained')}\n"
    assert (here / "python.png").read_bytes() == (here / "a-explained.png").read_bytes()
    (here / "bad.jpg").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"bad\.jpg is no"):
        predictor.predict([files[0], "bad.jpg"])
    with pytest.raises(ConfigError, match=r"there is no file none\.jpg"):
        predictor.predict("none.jpg")


def test_texts_are_classified_as_on_the_command_line(runs: SmallRuns, dlrun: Dlrun) -> None:
    texts = ["one two three", "It was great, he said. " * 40, "zzz"]
    pd.DataFrame({"text": texts}).to_csv("new.csv", index=False)
    answer = dlrunner.load(runs["texts"]).predict(texts, words=True)
    same(answer, from_command_line(dlrun, str(runs["texts"]), "new.csv", "--only", "text"))
    assert answer["text"].tolist() == texts
    assert "only out-of-vocabulary words" in answer.attrs["note"]
    pd.testing.assert_frame_equal(dlrunner.load(runs["texts"]).predict(pd.Series(texts)), answer)


def test_given_texts_are_whole_in_every_answer(runs: SmallRuns, dlrun: Dlrun) -> None:
    text = "a long text " * 20
    for kind in ("texts", "language"):
        predictor = dlrunner.load(runs[kind])
        assert predictor.predict([text])["text"].tolist() == [text]
        assert predictor.predictor.predict_request(pd.DataFrame({"text": [text]}))["text"].tolist() == [text]
        status, out, err = dlrun("predict", str(runs[kind]), text, "--json")
        assert status == 0, err
        assert json.loads(out)[0]["text"] == text
    assert max(map(len, dlrunner.load(runs["texts"]).predict([text], words=True).attrs["note"].splitlines())) < 200


def test_a_language_model_scores_and_generates_as_on_the_command_line(runs: SmallRuns, dlrun: Dlrun) -> None:
    run, predictor = runs["language"], dlrunner.load(runs["language"])
    texts = [known_words(run, 12), known_words(run, 3)]
    pd.DataFrame({"text": texts}).to_csv("new.csv", index=False)
    same(predictor.predict(texts), from_command_line(dlrun, str(run), "new.csv", "--only", "text"), leaving="text")
    for options, words in (
        ({}, []),
        ({"top_p": 0.9, "seed": 3}, ["--top-p", "0.9", "--seed", "3"]),
        ({"beams": 3}, ["--beams", "3"]),
    ):
        _, out, err = dlrun("generate", str(run), texts[1], "--words", "8", *words)
        assert predictor.generate(texts[1], words=8, **options) == out.removesuffix("\n"), err
    following = predictor.next_words(texts[1], 4)
    same(following, from_command_line(dlrun, str(run), texts[1], "4", verb="next-words"))
    assert predictor.generate(texts[1], next=4) == dlrun("generate", str(run), texts[1], "--next", "4")[1].strip()
    assert predictor.generate(f"{texts[1]} zzz", words=2).note.endswith("read as <unk>: zzz")
    same(predictor.predict(Path("new.csv")), from_command_line(dlrun, str(run), "new.csv"))
    assert following.columns.tolist() == ["word", "probability"]
    assert following["probability"].is_monotonic_decreasing
    words_only = following["word"][~following["word"].str.startswith("<")]  # a text does not start with its end
    assert words_only.iloc[0] == predictor.generate(texts[1], words=1)


def test_a_loaded_run_has_the_record_of_the_run(runs: SmallRuns) -> None:
    run = runs["ratings"]
    predictor = dlrunner.load(str(run))
    summary = json.loads((run / "summary.json").read_text())
    assert predictor.summary == summary
    assert predictor.metrics == summary["final"]
    assert predictor.history["valid/rmse"].iloc[-1] == predictor.metrics["valid/rmse"]
    assert predictor.config["batch_size"] == 512
    assert isinstance(predictor.model, torch.nn.Module)
    assert not predictor.model.training
    assert predictor.models == [predictor.model]
    assert len(predictor.predictions) == summary["data"]["rows"]["valid"]
    assert repr(predictor) == f"<LoadedRun {run}, valid/rmse {predictor.metrics['valid/rmse']:.4f}>"


def test_an_ensemble_has_all_its_members(runs: SmallRuns) -> None:
    predictor = dlrunner.load(runs["several of ratings"])
    assert len(predictor.models) == 2
    assert predictor.history["member"].tolist() == [0, 1]


def test_completion_lists_the_methods_of_the_run(runs: SmallRuns) -> None:
    methods = {"predict", "generate", "next_words", "recommend", "similar"}
    assert methods & set(dir(dlrunner.load(runs["ratings"]))) == {"predict", "recommend", "similar"}
    assert methods & set(dir(dlrunner.load(runs["language"]))) == {"predict", "generate", "next_words"}
    assert methods & set(dir(dlrunner.load(runs["texts"]))) == {"predict"}


@pytest.mark.parametrize(
    ("kind", "call", "message"),
    [
        ("texts", "p.generate('it')", "TextClassification has no method generate; it has predict"),
        ("texts", "p.predict(['a', 3])", "give texts; number 2 of the list is an int"),
        ("texts", "p.predict([])", "the list is empty; give texts"),
        ("texts", "p.predict(5)", "give texts, one or a list of them, not an int"),
        ("texts", "p.predict('it', top=3)", "predict: has no option top; known: column, only, texts, words"),
        ("numbers", "p.predict('new.csv')", "there is no file new.csv"),
        (
            "numbers",
            "p.predict({'city': ['Ulm', 'Bonn'], 'rooms': [1]})",
            "table: All arrays must be of the same length",
        ),
        ("numbers", "p.predict(new_flats(), only=['rom'])", "only: the table has no column 'rom'; did you mean rooms?"),
        ("numbers", "p.predict(new_flats()[:0])", "the table has no rows"),
        (
            "numbers",
            "p.predict(new_flats()[['city']])",
            "rooms, area",
        ),
        ("numbers", "p.recommend(1)", "Tabular has no method recommend; it has predict"),
        ("ratings", "p.recommend()", "give either user or ratings"),
        ("ratings", "p.recommend('nobody')", "user nobody is not among the 600 users"),
        ("ratings", "p.recommend(1, top=0)", "top: must be greater than or equal to 1, not 0"),
        ("ratings", "p.recommend(1, top=2.5)", "top: must be an integer, not 2.5"),
        ("ratings", "p.similar(1, top='5')", "top: must be an integer, not '5'"),
        ("ratings", "p.recommend(new_flats())", "user: must be an integer or a number or a string, not a DataFrame"),
        ("ratings", "p.recommend(ratings=[4.0])", "give a table (pandas.read_csv reads one from a file), not a list"),
        ("ratings", "p.similar(None)", "item: must be an integer or a number or a string, not None"),
        ("numbers", "p.predict(new_flats(), only=[5])", "only[0]: must be a string, not 5"),
        ("ratings", "p.predict(new_flats())", "the table has no column for the user"),
        ("language", "p.generate(w, words=0)", "words: must be greater than or equal to 1, not 0"),
        ("language", "p.generate(w, words=2.5)", "words: must be an integer, not 2.5"),
        ("language", "p.generate(w, top_p=1.5)", "top_p: must be less than or equal to 1, not 1.5"),
        ("language", "p.generate(w, beams=2, seed=1)", "beams: cannot be combined"),
        ("language", "p.generate(w, words='5')", "words: must be an integer, not '5'"),
        ("language", "p.generate(None)", "text: must be a string, not None"),
        ("language", "p.next_words([w])", "text: must be a string, not ["),
        ("language", "p.next_words(w, 0)", "number: must be greater than or equal to 1, not 0"),
        ("language", "p.next_words(w, -1)", "number: must be greater than or equal to 1, not -1"),
        ("language", "p.next_words(w, 2.5)", "number: must be an integer, not 2.5"),
        ("language", "p.next_words()", "next_words: missing a required argument: 'text'"),
        ("language", "p.generate(w, next=3, beams=2)", "next: cannot be combined with beams"),
        ("language", "p.predict('new.csv')", "there is no file new.csv"),
        ("language", "p.predict('')", "the text is empty"),
        ("texts", "p.predict('there.csv')", "'there.csv' is a file or folder, not a text: give Path('there.csv')"),
        ("ratings", "p.predict()", "give exactly one of"),
        ("language", "p.generate('zzz')", "in the vocabulary of this run (zzz)"),
    ],
)
def test_invalid_arguments_are_refused_with_a_message(
    kind: str, call: str, message: str, runs: SmallRuns, here: Path
) -> None:
    names: dict[str, Any] = {"p": dlrunner.load(runs[kind]), "new_flats": new_flats}
    if kind == "language":
        names["w"] = known_words(runs[kind], 1)
    Path("there.csv").touch()
    with pytest.raises((ConfigError, DataError)) as raised:
        eval(call, names)
    assert message in str(raised.value)


def test_a_folder_that_is_not_a_finished_run_is_refused(runs: SmallRuns, here: Path) -> None:
    with pytest.raises(ConfigError, match="there is no run folder nowhere"):
        dlrunner.load("nowhere")
    with pytest.raises(ConfigError, match=r"is not a run folder: it has no config\.yaml"):
        dlrunner.load(here)
    with pytest.raises(ConfigError, match=r"has no cycle-9\.pt; it has best\.pt, last\.pt"):
        dlrunner.load(runs["ratings"], checkpoint="cycle-9.pt")
    shutil.copytree(runs["ratings"], here / "run")
    (here / "run" / "last.pt").write_bytes((here / "run" / "last.pt").read_bytes()[:1000])
    with pytest.raises(RunError, match=r"last.pt is damaged or not a checkpoint.*train the run again"):
        dlrunner.load("run")
    (here / "run" / "summary.json").unlink()
    with pytest.raises(ConfigError, match="run is killed or still running; only a finished run can be used; its "):
        dlrunner.load("run")
    (here / "run" / "summary.json").write_text('{"status": "failed", "error": "the loss is nan"}')
    with pytest.raises(ConfigError, match=r"run is failed: the loss is nan; only a finished run can be used$"):
        dlrunner.load("run")


def test_an_error_in_a_model_is_not_reported_as_weights_of_another(
    runs: SmallRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dims(state: Any) -> Any:
        raise KeyError("words")

    monkeypatch.setattr("dlrunner.tasks.collab.predictor.RatingPredictor.dims", dims)
    message = r"cannot be built from what .* has stored \(KeyError: 'words'\)"
    with pytest.raises(ConfigError, match=message) as raised:
        dlrunner.load(runs["ratings"])
    assert isinstance(raised.value.__cause__, KeyError)


def test_a_run_in_half_precision_predicts_on_the_cpu(runs: SmallRuns, dlrun: Dlrun, here: Path) -> None:
    shutil.copytree(runs["ratings"], here / "run")
    file = here / "run" / "config.yaml"
    file.write_text(file.read_text().replace("precision: fp32", "precision: fp16"))
    predictor, other = dlrunner.load("run"), dlrunner.load(runs["ratings"])
    assert predictor.config["precision"] == "fp16"
    user = other.predictions["user"].iloc[0]
    pd.testing.assert_frame_equal(predictor.recommend(user), other.recommend(user), check_exact=True)
    assert dlrun("predict", "run", "--user", str(user))[0] == 0
    assert dlrun("export", "run")[0] == 0
    assert dlrunner.load("run/export").metrics == other.metrics


def test_latest_is_resolved_when_a_run_is_loaded(
    ratings_csv: Path, here: Path, dlrun: Dlrun, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["task=collab", "data.path=my.csv", "epochs=1", *QUICK]
    assert dlrun(*words)[0] == 0
    predictor = dlrunner.load("runs/latest")
    before, shown = predictor.predictions, repr(predictor)
    assert shown.startswith("<LoadedRun runs/collab/epochs=1,data.path=my.csv-")
    assert dlrun(*words, "seed=1")[0] == 0
    pd.testing.assert_frame_equal(predictor.predictions, before)
    assert not dlrunner.load("runs/latest").predictions.equals(before)
    assert repr(predictor) == shown
    monkeypatch.chdir("/")
    pd.testing.assert_frame_equal(predictor.predictions, before)


def test_loading_does_not_change_the_global_random_state(runs: SmallRuns) -> None:
    paths = [runs[kind] for kind in ("ratings", "language", "pictures")]  # they are trained on first use
    before = torch.get_rng_state()
    for path in paths:
        dlrunner.load(path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_missing_tracker_plugin_does_not_matter(runs: SmallRuns, here: Path, dlrun: Dlrun) -> None:
    shutil.copytree(runs["ratings"], here / "run")
    file = here / "run" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    config["plugins"] = ["gone_from_here"]
    config["log"]["trackers"] = {"mine": {"_target_": "gone_from_here.Mine", "uri": "http://me:mysecret@there"}}
    file.write_text(yaml.safe_dump(config))
    typed = ["task=collab", "log.trackers.mine.uri=http://me:mysecret@there"]
    (here / "run" / "overrides.yaml").write_text(yaml.safe_dump(typed))
    user = str(dlrunner.load("run").predictions["user"].iloc[0])
    assert dlrun("predict", "run", "--user", user)[0] == 0
    assert dlrun("export", "run", "--out", "out")[0] == 0
    for exported in (here / "out").glob("*.*"):
        content = exported.read_bytes()
        assert b"mysecret" not in content, exported
        assert b"gone_from_here" not in content, exported
    assert dlrun("predict", "out", "--user", user)[0] == 0


def test_a_run_that_imports_modules_is_refused_unless_they_are_named(
    dlrun: Dlrun, here: Path, monkeypatch: Any
) -> None:
    add_task(here, PREDICTING)
    monkeypatch.syspath_prepend(str(here))
    status, out, err = dlrun("task=parabola", "epochs=1", "log.plots=false", "log.report=false")
    assert status == 0, out + err
    sys.modules.pop("parabola")
    with pytest.raises(ConfigError, match=r"this run imports parabola; if you trust it, add: plugins=\['parabola'\]"):
        dlrunner.load("runs/latest")
    assert "parabola" not in sys.modules
    run = dlrunner.load("runs/latest", plugins=["parabola"])
    assert run.model(torch.zeros(1, 1)).shape[0] == 1
    assert run.predict(0.5, times=2)["x"].tolist() == [0.5, 0.5]
    for verb in ("export", "predict"):
        assert "if you trust it, add: --plugins parabola" in dlrun(verb, "runs/latest")[2]
    assert dlrun("export", "runs/latest", "--plugins=parabola")[0] == 0
    status, out, err = dlrun("predict", "runs/latest", "--plugins=parabola", "0.5", "--times", "2")
    assert status == 0, err
    assert out.count("0.5") == 2
    sys.modules.pop("parabola")  # other tests have another module of this name


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_every_method_has_an_example(predictor: type[dlrunner.Predictor]) -> None:
    for name, method in predictor.methods().items():
        assert f"predictor.{name}(" in (inspect.getdoc(method) or "")
    assert 'dlrunner.load("runs/latest")' in (inspect.getdoc(dlrunner.load) or "")


@pytest.mark.parametrize("kind", ["numbers", "texts"])
def test_torchs_default_precision_changes_no_prediction(kind: str, runs: SmallRuns) -> None:
    rows: Any = new_flats() if kind == "numbers" else ["a fine film", "dull"]
    expected = dlrunner.load(runs[kind]).predict(rows)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = dlrunner.load(runs[kind]).predict(rows)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(before)
    pd.testing.assert_frame_equal(found, expected, check_exact=True)
