"""Language models and text classifiers from the command line: training, resuming and prediction."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock

import dlrunner
from dlrunner.cli import main
from dlrunner.cli.compose import compose
from dlrunner.comparison.diff import NOT_COMPARED
from dlrunner.config.plan import plan
from dlrunner.data.imdb.dataset import ImdbData
from dlrunner.data.texts.vocabulary import Vocabulary
from dlrunner.encoder_file import Encoder, EncoderSizes
from dlrunner.models.language import LanguageDims, LanguageModel
from dlrunner.models.ngram import KneserNey
from dlrunner.models.recurrent import RecurrentEncoder
from dlrunner.runs.checkpoints import load_weights_file, weights_digest
from dlrunner.schedules import Phase, constant
from dlrunner.tasks.language.generation import Generator
from dlrunner.tasks.language.task import LanguageModeling
from tests.conftest import QUICK, Dlrun, shared_folder, start
from tests.small_runs import SmallRuns

SIZES = ("model.embedding=32", "model.hidden=64", "model.layers=1")
SYNTHETIC = ("data.source=synthetic", "data.min_freq=1")
LM = ("task=imdb-lm", *SYNTHETIC, *SIZES, "batch_size=16", "optim.lr=2e-2", "task.bptt=20", "task.valid_batch_size=8")
ADAPTIVE = ("model.softmax=adaptive", "model.cutoffs=[20,50]")
POINTER = ("model.pointer=30",)
PHASE = Phase(1, constant(1), (1.0,))
SHORT = ("data.sample=200", "data.sample_valid=100", "epochs=1")


def summary(run: str = "runs/latest") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(run, "summary.json").read_text())
    return found


def known_words(run: str | Path) -> list[str]:
    """Return words of a run's vocabulary, without special tokens."""
    return [word for word in json.loads((Path(run) / "vocabulary.json").read_text()) if word.isalpha()]


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a small language model; to be read only."""
    folder = shared_folder(tmp_path_factory, "language-model")
    with FileLock(f"{folder}.lock"):
        if not (folder / "latest").exists():
            assert main([*LM, *SHORT, *QUICK, f"runs_dir={folder}"]) == 0
    return str((folder / "latest").resolve())


@pytest.mark.slow  # trains for eight epochs on all texts; a classifier comes near its best achievable score below
def test_the_perplexity_of_synthetic_text_comes_near_the_best_achievable_and_never_below(dlrun: Dlrun) -> None:
    words = ("epochs=8", "model.output_dropout=0", "model.weight_dropout=0", "model.alpha=0", "model.beta=0")
    status, out, err = dlrun(*LM, *words, *QUICK)
    assert status == 0, out + err
    found = summary()
    best = found["data"]["best_achievable"]
    assert best < found["metric"]["value"] < 1.15 * best
    grams = found["baselines"]["4-grams, interpolated Kneser-Ney"]["valid/perplexity"]
    assert found["metric"]["value"] < grams
    assert grams > best
    assert f"{grams:.4f}" in out


def test_a_baseline_of_a_large_stream_counts_its_first_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlrunner.tasks.language.task.MOST_COUNTED", 3_000)
    data = ImdbData(Path(), source="synthetic", min_freq=1, sample=200, sample_valid=100)
    task = LanguageModeling(data, 16, 0, torch.device("cpu"), ngram=3)
    ((name, metrics),) = task.baselines().items()
    assert name == "3-grams, interpolated Kneser-Ney, of the first 3,000 words"
    train, valid = (task._stream(split).numpy() for split in ("train", "valid"))
    assert len(train) > 3_000
    expected = -KneserNey(train[:3_000], len(task.table.vocabulary.words), 3).log_probabilities(valid).mean()
    assert metrics["valid/loss"] == pytest.approx(expected)


def test_validation_counts_every_word_once_for_any_number_of_columns(language_model: str) -> None:
    metrics = []
    model_file = Path(language_model) / "last.pt"
    for columns in (1, 7, 8):
        data = ImdbData(Path(), source="synthetic", min_freq=1, sample=200, sample_valid=100)
        task = LanguageModeling(data, 16, 0, torch.device("cpu"), bptt=20, valid_batch_size=columns, ngram=0)
        from dlrunner.models.language import LanguageModel

        model = LanguageModel(task.dims, embedding=32, hidden=64, layers=1).eval()
        model.load_state_dict(load_weights_file(model_file)["model"])
        losses, hidden = [], None
        for batch in task.batches("valid", 0, PHASE):
            with torch.inference_mode():
                outputs, hidden, _ = model(*batch.inputs, hidden=hidden)
                losses.append(outputs)
            assert len(losses[-1]) == len(batch.targets)
        together = torch.cat(losses)
        assert len(together) == len(task._stream("valid")) - 1
        ordered = task._losses_in_order(together)
        metrics.append(np.exp(together.mean().item()))
        # The same word has much the same loss wherever its column begins: contexts are short in this source.
        if columns == 1:
            first = ordered
        else:
            assert np.corrcoef(first, ordered)[0, 1] > 0.98
    assert metrics[2] == pytest.approx(summary(language_model)["metric"]["value"], rel=1e-5)
    assert max(metrics) / min(metrics) < 1.02


@pytest.mark.parametrize("net", [(), ADAPTIVE, POINTER])
def test_a_language_model_killed_within_an_epoch_resumes_bit_for_bit(
    net: tuple[str, ...], dlrun: Dlrun, here: Path
) -> None:
    words = (
        *LM,
        *net,
        "data.sample=300",
        "data.sample_valid=100",
        "epochs=2",
        "trainer.checkpoint_minutes=0.0001",
        *QUICK,
    )
    environment = {"DLRUNNER_CACHE": os.environ["DLRUNNER_CACHE"], "DLRUNNER_OFFLINE": "1"}
    status, out, err = dlrun(*words, "runs_dir=unbroken")
    assert status == 0, out + err
    process = start(*words, "runs_dir=killed", cwd=here, **environment)
    deadline = time.monotonic() + 60
    while not list(here.glob("killed/imdb-lm/*/last.pt")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (folder,) = (path for path in here.glob("killed/imdb-lm/*") if path.is_dir() and not path.is_symlink())
    checkpoint = load_weights_file(folder / "last.pt")
    assert checkpoint["state"]["step"] > 0 or checkpoint["state"]["epoch"] > 0
    assert dlrun(*words, "runs_dir=killed")[0] == 0
    (unbroken,) = (path for path in here.glob("unbroken/imdb-lm/*") if path.is_dir() and not path.is_symlink())
    rows = [
        [
            {k: v for k, v in json.loads(line).items() if k not in NOT_COMPARED}
            for line in (f / "metrics.jsonl").read_text().splitlines()
        ]
        for f in (unbroken, folder)
    ]
    assert rows[0] == rows[1]
    digests = {weights_digest(load_weights_file(f / "last.pt")["model"]) for f in (unbroken, folder)}
    assert len(digests) == 1


def test_a_language_model_stores_its_vocabulary_and_encoder(language_model: str) -> None:
    run = Path(language_model)
    words = json.loads((run / "vocabulary.json").read_text())
    assert words[:2] == ["<unk>", "<pad>"]
    encoder = Encoder.read(run)
    assert encoder.words == words
    assert (encoder.sizes.embedding, encoder.sizes.hidden, encoder.sizes.layers) == (32, 64, 1)
    weights = load_weights_file(run / "last.pt")["model"]
    assert torch.equal(encoder.weights["embedding.weight"], weights["encoder.embedding.weight"])


def test_an_encoder_has_the_precision_that_it_was_trained_in(language_model: str, dlrun: Dlrun) -> None:
    status, out, err = dlrun(*LM, *SHORT, *QUICK, "precision=bf16")
    assert status == 0, out + err
    for run, dtype in ((language_model, torch.float32), ("runs/latest", torch.bfloat16)):
        assert {weight.dtype for weight in Encoder.read(Path(run)).weights.values()} == {dtype}
    words = ("task=imdb-sentiment", "data.source=synthetic", "model.encoder=runs/latest", "epochs=1", "precision=bf16")
    status, out, err = dlrun(*words, "data.sample=40", "data.sample_test=20", "freeze_to=-1", *QUICK)
    assert status == 0, out + err


def test_generation_is_reproducible_with_every_decoding_method(language_model: str, dlrun: Dlrun) -> None:
    run = language_model
    words = known_words(run)
    beginning = " ".join(words[:3])
    ways = [[], ["--top-k", "5"], ["--top-p", "0.9"], ["--temperature", "0.7"], ["--seed", "4"], ["--beams", "3"]]
    for way in ways:
        answers = [dlrun("generate", run, beginning, "--words", "8", *way) for _ in range(2)]
        assert answers[0][:2] == answers[1][:2]
        status, out, err = answers[0]
        assert status == 0, err
        assert 1 <= len(out.split()) <= 8
        assert "<unk>" not in out
    drawn = {dlrun("generate", run, beginning, "--words", "30", "--seed", str(seed))[1] for seed in range(3)}
    assert len(drawn) == 3
    greedy = dlrun("generate", run, beginning, "--words", "5")[1]
    assert dlrun("generate", run, beginning, "--words", "5", "--top-k", "1")[1] == greedy
    assert dlrun("generate", run, beginning, "--words", "5", "--beams", "1")[1] == greedy
    status, out, _ = dlrun("generate", run, beginning, "--next", "4")
    assert status == 0
    probs = [float(found) for found in re.findall(r"([\d.]+)%", out)]
    assert len(probs) == 4
    assert probs == sorted(probs, reverse=True)
    assert out.split()[0].strip("'") == greedy.split()[0]
    _, out, _ = dlrun("generate", run, f"{beginning} zzz", "--words", "2")
    assert "read as <unk>: zzz" in out


@pytest.mark.parametrize("kind", ["language by adaptive softmax", "language with a pointer"])
def test_a_run_with_another_net_is_used_as_any_other(kind: str, runs: SmallRuns, dlrun: Dlrun) -> None:
    run = runs[kind]
    words = known_words(run)
    beginning = " ".join(words[:3])
    for way in ([], ["--seed", "4"], ["--beams", "3"], ["--next", "4"]):
        status, out, err = dlrun("generate", str(run), beginning, "--words", "8", *way)
        assert status == 0, out + err
    predictor = dlrunner.load(run)
    following = predictor.next_words(beginning, len(words))
    following = following[following["word"].isin(words)].reset_index()
    scores = predictor.predict([f"{beginning} {word}" for word in following["word"][:3]])
    before = predictor.predict([beginning])
    losses = np.log(scores["perplexity"]) * scores["words"] - float(np.log(before["perplexity"].iloc[0])) * 3
    np.testing.assert_allclose(np.exp(-losses), following["probability"][:3], rtol=1e-3)
    status, out, err = dlrun(
        "task=imdb-sentiment", "data.source=synthetic", *SHORT, f"model.encoder={run}", "task.baseline=false", *QUICK
    )
    assert status == 0, out + err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["zzz yyy"], "(yyy, zzz)"),
        ([""], "it is empty"),
        (["{word}", "--beams", "2", "--top-k", "2"], "beams: cannot be combined"),
        (["{word}", "--top-p", "1.5"], "top_p: must be less than or equal to 1, not 1.5"),
        (["{word}", "--temperature", "0"], "temperature: must be greater than 0, not 0"),
        (["{word}", "--words", "0"], "words: must be greater than or equal to 1"),
    ],
)
def test_invalid_generation_options_are_refused(
    words: list[str], message: str, language_model: str, dlrun: Dlrun
) -> None:
    word = known_words(language_model)[0]
    status, out, err = dlrun("generate", language_model, *(each.format(word=word) for each in words))
    assert status == 2
    assert message in err
    assert "Traceback" not in out + err


def test_generate_is_refused_by_other_tasks(dlrun: Dlrun, ratings_csv: Path) -> None:
    assert dlrun("task=collab", f"data.path={ratings_csv}", "epochs=1", *QUICK)[0] == 0
    status, _, err = dlrun("generate", "runs/latest", "a text")
    assert status == 2
    assert "has no method generate; it has predict, recommend, similar" in err


def test_predict_reports_the_perplexity_of_new_texts(language_model: str, dlrun: Dlrun, here: Path) -> None:
    run = language_model
    words = known_words(run)
    (here / "new.txt").write_text(f"{words[0]} {words[1]}\n{words[2]} zzz\n")
    status, out, err = dlrun("predict", run, "new.txt", "--out", "answer.csv")
    assert status == 0, out + err
    answer = pd.read_csv("answer.csv")
    assert answer["words"].tolist() == [2, 2]
    assert answer["unknown"].tolist() == [0, 1]
    assert (answer["perplexity"] > 1).all()
    (here / "gaps.txt").write_text(f"{words[0]} {words[1]}\n\n{words[2]} zzz\n")
    status, out, err = dlrun("predict", run, "gaps.txt", "--out", "gaps.csv")
    assert status == 1, out + err
    gaps = pd.read_csv("gaps.csv")
    assert gaps["perplexity"].dropna().tolist() == answer["perplexity"].tolist()
    assert gaps["problem"].fillna("").tolist() == ["", "the text is empty", ""]


def test_predict_has_the_perplexity_with_a_cache_and_without(language_model: str, dlrun: Dlrun) -> None:
    words = known_words(language_model)[40:60]
    repeated, once = " ".join([words[0], words[1]] * 10), " ".join(words)
    loaded = dlrunner.load(language_model)
    plain = loaded.predict([repeated, once, ""])
    cached = loaded.predict([repeated, once, ""], cache=50)
    assert cached["perplexity"].tolist()[:2] == plain["perplexity"].tolist()[:2]
    assert cached["perplexity_cache"][0] < plain["perplexity"][0]
    assert cached["perplexity_cache"][1] > plain["perplexity"][1]
    assert cached.iloc[2][["perplexity", "perplexity_cache"]].isna().all()
    unweighted = loaded.predict([once], cache=50, cache_weight=0.0)["perplexity_cache"][0]
    assert unweighted == pytest.approx(plain["perplexity"][1], rel=1e-5)
    assert dlrun("predict", language_model, repeated, "--cache", "50", "--cache-weight", "1")[0] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("batch_size=4000",), "the train texts have"),
        (("task.bptt=100000",), "for 16 columns of 100000 words; try batch_size=1 and a smaller task.bptt"),
        (("batch_size=4000", "task.bptt=10"), "; try batch_size="),
        (("model.cell=rnn",), "model.cell: must be 'lstm', 'gru' or 'qrnn'"),
        (("model=text_classifier",), "model: text_classifier does not fit task imdb-lm"),
        (("data.split=folds",), "data.split: must be 'test', 'random' or 'stratified'"),
        (("data.max_vocab=2",), "data.max_vocab: must be"),
    ],
)
def test_invalid_settings_of_a_language_model_are_refused(words: tuple[str, ...], message: str, dlrun: Dlrun) -> None:
    kept = [word for word in LM if word.split("=")[0] not in {w.split("=")[0] for w in words}]
    if words == ("model=text_classifier",):
        kept = [word for word in kept if not word.startswith("model.")]
    status, out, err = dlrun(*kept, *words, *SHORT, *QUICK)
    assert status in (1, 2)
    assert message in err
    assert "Traceback" not in out + err


CLASSIFY = ("task=imdb-sentiment", *SYNTHETIC, "batch_size=16", "optim.lr=1e-2", "task.baseline=false")
WITH_ENCODER = tuple(word for word in CLASSIFY if word != "data.min_freq=1")


def test_a_classifier_comes_near_the_best_achievable_accuracy_and_not_above(dlrun: Dlrun) -> None:
    dropouts = ("model.input_dropout=0.1", "model.weight_dropout=0.1", "model.hidden_dropout=0.1")
    status, out, err = dlrun(*CLASSIFY, *SIZES, *dropouts, "epochs=10", *QUICK)
    assert status == 0, out + err
    found = summary()
    best = found["data"]["best_achievable"]  # on the very same test reviews
    assert best - 0.07 < found["final"]["test/accuracy"] < best + 0.02


def test_the_test_set_is_evaluated_once_and_a_baseline_is_reported(dlrun: Dlrun) -> None:
    words = [word for word in CLASSIFY if word != "task.baseline=false"]
    status, out, err = dlrun(*words, *SIZES, "epochs=2", "data.sample=300", "log.plots=false")
    assert status == 0, out + err
    found = summary()
    history = [json.loads(line) for line in Path("runs/latest/metrics.jsonl").read_text().splitlines()]
    assert all("test/accuracy" not in row for row in history)
    assert 0 < found["final"]["test/accuracy"] < 1
    assert found["metric"]["name"] == "valid/accuracy"
    constant, baseline = found["baselines"].values()
    assert constant["test/accuracy"] == pytest.approx(0.5, abs=0.1)
    assert 0.55 < baseline["test/accuracy"] < found["data"]["best_achievable"] + 0.03
    assert "no encoder: model=text_classifier model.encoder=RUN" in out
    report = Path("runs/latest/report.html").read_text()
    assert "logistic regression" in report
    assert "The most confident mistakes" in report
    assert '<mark class="' in report
    table = pd.read_csv("runs/latest/predictions.csv")
    right = (table["sentiment"] == table["prediction"]).mean()
    assert right == pytest.approx(found["final"]["valid/accuracy"], abs=1e-9)
    folder = table["text"].str.split("/").str[1]
    assert (folder == table["sentiment"]).all()


def reviews(num_rows: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    good, bad, other = ("great film", "lovely story"), ("awful film", "boring story"), ("a film", "some story")
    kinds = rng.integers(0, 3, num_rows)
    texts = [
        " ".join(["it was", str(rng.choice((good, bad, other)[kind])), "said", str(rng.choice(["he", "she"]))])
        for kind in kinds
    ]
    names = np.array(["good", "bad", "other"])
    table = pd.DataFrame({"nr": range(num_rows), "review": texts, "opinion": names[kinds]})
    table["is_good"], table["is_film"] = (kinds == 0).astype(int), table["review"].str.contains("film").astype(int)
    return table


OWN = ("task=text", "model=text_classifier", "data.path=r.csv", "data.text=review", "batch_size=8", "epochs=6", "optim.lr=1e-2", "data.valid=0.25",
       "model.input_dropout=0.0", "model.weight_dropout=0.0", "model.hidden_dropout=0.0", *SIZES)  # fmt: skip


@pytest.mark.parametrize(
    ("words", "metric", "kind"),
    [
        (("data.target=opinion", "data.split=stratified"), "valid/accuracy", "multiclass"),
        (("data.target=is_good",), "valid/accuracy", "binary"),
        (("data.target=[is_good,is_film]",), "valid/f1", "multilabel"),
    ],
)
def test_your_own_texts_are_classified_and_new_ones_too(
    words: tuple[str, ...], metric: str, kind: str, dlrun: Dlrun, here: Path
) -> None:
    reviews().to_csv("r.csv", index=False)
    status, out, err = dlrun(*OWN, *words, "log.report=false")
    assert status == 0, out + err
    found = summary()
    assert found["metric"]["name"] == metric
    assert found["metric"]["value"] > 0.95
    assert list(Path("runs/latest/plots").glob("*.svg"))
    status, out, err = dlrun("predict", "runs/latest", "it was great film said he", "--words", "--out", "a.csv")
    assert status == 0, out + err
    answer = pd.read_csv("a.csv").iloc[0]
    if kind == "multiclass":
        assert answer["opinion"] == "good"
        assert "great +" in out
    elif kind == "binary":
        assert answer["is_good"] == 1
    else:
        assert answer["p(is_good)"] > 0.5
    (here / "new.csv").write_text("review\nit was awful film said she\nzzz\n")
    status, out, err = dlrun("predict", "runs/latest", "new.csv", "--column", "review")
    assert status == 0, out + err
    assert "1 text(s) contain only out-of-vocabulary words" in out
    (here / "gaps.csv").write_text('review,n\nit was great film said he,1\n"",2\nit was awful film said she,3\n')
    status, out, err = dlrun("predict", "runs/latest", "gaps.csv", "--column", "review", "--out", "b.csv")
    assert status == 0, out + err
    assert "1 text(s) are empty: their predictions are those of the class frequencies of the training texts" in out
    gaps = pd.read_csv("b.csv")
    assert gaps[["row", "n"]].values.tolist() == [[2, 1], [3, 2], [4, 3]]
    probabilities = [name for name in map(str, gaps) if name.startswith("p(")]
    assert [gaps[name][0] for name in probabilities] == [answer[name] for name in probabilities], (
        "the first text is that of a.csv"
    )
    part = pd.read_csv("runs/latest/predictions.csv")["row"] - 2
    train = reviews().drop(index=list(part))
    kinds = pd.get_dummies(train["opinion"]) if kind == "multiclass" else train[["is_good", "is_film"]]
    for name in probabilities:
        column = {"1": "is_good"}.get(name[2:-1], name[2:-1])
        assert gaps[name][1] == pytest.approx(kinds[column].mean(), abs=1e-3)


def test_a_model_that_was_trained_on_empty_texts_answers_them(dlrun: Dlrun, here: Path) -> None:
    for kind, text in (("none", ""), ("good", "it was great")):
        (here / "texts" / kind).mkdir(parents=True)
        for number in range(60):
            (here / "texts" / kind / f"{number}.txt").write_text(text)
    words = ["data.path=texts" if word == "data.path=r.csv" else word for word in OWN if word != "data.text=review"]
    status, out, err = dlrun(*words, *QUICK)
    assert status == 0, out + err
    (here / "new.csv").write_text('review,n\nit was great,1\n"",2\n')
    status, out, err = dlrun("predict", "runs/latest", "new.csv", "--column", "review", "--out", "b.csv")
    assert status == 0, out + err
    assert "those of the model (the run has such)" in out
    assert pd.read_csv("b.csv", keep_default_na=False)["folder"].tolist() == ["good", "none"]


def test_texts_without_words_that_validate_have_the_same_answer_in_prediction(dlrun: Dlrun, here: Path) -> None:
    texts = {f"train/good/{number}": "it was great" for number in range(20)}
    texts |= {f"train/bad/{number}": "it was awful" for number in range(20)}
    texts |= {"valid/bad/a": "it was", "valid/bad/b": "", "valid/bad/c": "   ", "valid/good/d": "<br />"}
    for name, text in texts.items():
        (here / "texts" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "texts" / f"{name}.txt").write_text(text)
    status, out, err = dlrun("task=text", "data.path=texts", "epochs=1", "task.baseline=false", *QUICK)
    assert status == 0, out + err
    status, out, err = dlrun("predict", "runs/latest", "texts/valid", "--out", "b.csv")
    assert status == 0, out + err
    assert "3 text(s) are empty" in out
    answer, expected = pd.read_csv("b.csv"), pd.read_csv("runs/latest/predictions.csv")
    assert answer["p(good)"].tolist() == expected["p(good)"].tolist()
    assert answer["p(good)"][1:].nunique() == 1


def test_the_settings_of_few_texts_follow_from_their_number(dlrun: Dlrun, here: Path) -> None:
    reviews().to_csv("r.csv", index=False)
    own = ("data.path=r.csv", "data.text=review", "data.target=opinion", "task.baseline=false")
    words = ("task=text", "model=text_classifier", *own, *QUICK)
    status, out, err = dlrun(*words, "epochs=1")
    assert status == 0, out + err
    found = summary()["auto"]
    assert found == {"batch_size": 16, "model.embedding": 100, "model.hidden": 100, "model.layers": 1}
    status, out, err = dlrun(*words, "epochs=1", "batch_size=8", *SIZES)
    assert status == 0, out + err
    assert "auto" not in summary()


def test_labels_have_a_regression_each_for_comparison(dlrun: Dlrun, here: Path) -> None:
    reviews().assign(never=0).to_csv("r.csv", index=False)
    status, out, err = dlrun(*OWN, "data.target=[is_good,is_film,never]", "epochs=1", *QUICK)
    assert status == 0, out + err
    constant, regression = summary()["baselines"].values()
    assert constant["valid/f1"] < 0.9
    assert regression["valid/f1"] == 1


def test_words_after_the_cut_are_not_in_the_vocabulary(dlrun: Dlrun, here: Path) -> None:
    rows = [("great film zebra zebra", "good"), ("awful film zebra zebra", "bad")] * 40
    pd.DataFrame(rows, columns=["review", "opinion"]).to_csv("r.csv", index=False)
    status, out, err = dlrun(*OWN, "data.target=opinion", "data.max_tokens=2", "epochs=1", *QUICK)
    assert status == 0, out + err
    assert summary()["data"]["rows"]["vocabulary"] == 5  # <unk>, <pad>, great, awful, film
    assert "statistics-fitted-on-validation" not in out


def test_the_settings_of_a_language_model_follow_from_the_words(dlrun: Dlrun, here: Path) -> None:
    random = np.random.default_rng(0)
    lines = (" ".join(random.choice(["a", "film", "was", "seen"], 40)) for _ in range(60))
    Path("t.txt").write_text("\n".join(lines))
    words = ("task=lm", "data.path=t.txt", "model.embedding=8", "model.hidden=8", "model.layers=1", *QUICK)
    status, out, err = dlrun(*words, "epochs=1")
    assert status == 0, out + err
    assert summary()["auto"] == {"batch_size": 4, "task.valid_batch_size": 3}  # 246 words validate


def test_gradual_unfreezing_with_rates_by_group(language_model: str, dlrun: Dlrun) -> None:
    run = language_model
    phases = "phases=[{epochs: 1, freeze_to: -1}, {epochs: 1, lr: [1e-4, 1e-3, 1e-2]}]"
    words = (*WITH_ENCODER, f"model.encoder={run}", "data.sample=200", "epochs=null", phases, *QUICK)
    status, out, err = dlrun(*words)
    assert status == 0, out + err
    history = [json.loads(line) for line in Path("runs/latest/metrics.jsonl").read_text().splitlines()]
    assert len(history[1]["lr"]) == 3
    without_rate = [word for word in words[:-3] if not word.startswith("optim.lr=")]
    status, out, err = dlrun(*without_rate, "phases=[{epochs: 1, lr: [1e-4, 1e-3]}]", *QUICK)
    assert status == 2
    assert "phases[0].lr: 2 rates for 3 layer group(s)" in err


def test_frozen_layers_keep_the_encoders_weights(language_model: str, dlrun: Dlrun) -> None:
    run = language_model
    encoder = Encoder.read(Path(run))
    words = (
        *WITH_ENCODER,
        f"model.encoder={run}",
        "data.sample=100",
        "epochs=null",
        "phases=[{epochs: 1, freeze_to: -1}]",
    )
    assert dlrun(*words, "optim.weight_decay=0.1", *QUICK)[0] == 0
    weights = load_weights_file(Path("runs/latest/last.pt"))["model"]
    for name, weight in encoder.weights.items():
        assert torch.equal(weights[f"encoder.{name}"], weight)


@pytest.mark.parametrize("name", ["imdb-sentiment", "imdb-sentiment-lesson", "imdb-sentiment-small"])
def test_experiments_that_need_an_encoder_accept_one_of_their_sizes(name: str, dlrun: Dlrun) -> None:
    settings = compose([f"experiment={name}"])["model"]
    sizes = EncoderSizes(settings["embedding"] or 12, settings["hidden"] or 8, settings["layers"], "lstm")
    words = ["<unk>", "<pad>", "<eos>", *(f"w{number}" for number in range(40))]
    weights = RecurrentEncoder(len(words), sizes).state_dict()
    Path("encoder.pt").write_bytes(Encoder(weights, sizes, words, "whitespace", True).content())
    status, out, err = dlrun(
        f"experiment={name}", "model.encoder=encoder.pt", "data.source=synthetic", "data.sample=40", "claim=null",
        "data.sample_valid=8", "data.sample_test=null", "epochs=1", "phases=null", *QUICK,
    )  # fmt: skip
    assert status == 0, out + err


def test_an_encoder_that_does_not_fit_is_refused_before_training(language_model: str, dlrun: Dlrun) -> None:
    run = language_model
    Path("runs").mkdir()
    for words, message in (
        ((f"model.encoder={run}", "model.hidden=65"), "it has embedding 32, hidden 64, layers 1, cell lstm; requested"),
        ((f"model.encoder={run}", "data.encoder=null"), "another vocabulary"),
        (("model.encoder=nowhere",), "there is no run folder nowhere"),
        (("model.encoder=runs/lm/lr=0.1-114a6f88",), "there is no run folder runs/lm/lr=0.1-114a6f88"),
        (("model.encoder=runs",), "runs has no encoder.pt"),
    ):
        status, out, err = dlrun(*WITH_ENCODER, *words, "data.sample=100", "epochs=1", *QUICK)
        assert status in (1, 2), message
        assert message in err
        assert "Traceback" not in out + err


def test_an_encoder_is_named_by_the_id_of_its_run_too(language_model: str, dlrun: Dlrun, here: Path) -> None:
    run = Path(shutil.copytree(language_model, here / "runs" / "imdb-lm" / Path(language_model).name))
    rest = (*WITH_ENCODER, "data.sample=100", "epochs=1", *QUICK)
    assert dlrun(f"model.encoder={run.relative_to(here)}", *rest)[0] == 0
    finished = Path("runs/latest").resolve()
    status, out, err = dlrun(f"model.encoder={run.name[-8:]}", *rest)
    assert status == 0, out + err
    assert "finished" in out + err
    assert Path("runs/latest").resolve() == finished


def test_a_classifier_is_used_when_its_encoder_is_gone(language_model: str, dlrun: Dlrun, here: Path) -> None:
    run = Path(shutil.copytree(language_model, here / "encoder"))
    words = (*WITH_ENCODER, f"model.encoder={run}", "data.sample=100", "epochs=1", *QUICK)
    assert dlrun(*words)[0] == 0
    classifier = Path("runs/latest").resolve()
    (run / "encoder.pt").unlink()
    text = " ".join(known_words(run)[:6])
    status, out, err = dlrun("predict", str(classifier), text)
    assert status == 0, out + err
    assert "p(pos)" in out


def test_another_encoder_at_the_same_path_is_recognised(language_model: str, dlrun: Dlrun, here: Path) -> None:
    run = Path(shutil.copytree(language_model, here / "encoder"))
    words = (*WITH_ENCODER, f"model.encoder={run}", "data.sample=100", "epochs=1", *QUICK)
    assert dlrun(*words)[0] == 0
    _, out, _ = dlrun(*words)
    assert "already finished" in out
    old = Encoder.read(run)
    changed = Encoder({n: w + 0.01 for n, w in old.weights.items()}, old.sizes, old.words, old.tokenizer, old.lower)
    (run / "encoder.pt").write_bytes(changed.content())
    status, out, err = dlrun(*words)
    assert status == 0, out + err
    assert "training again in a new folder" in out


def test_an_encoder_that_only_the_model_loads_is_part_of_the_run(language_model: str, dlrun: Dlrun, here: Path) -> None:
    run = Path(language_model)
    old, file = Encoder.read(run), here / "tuned.pt"
    file.write_bytes(old.content())
    words = (*WITH_ENCODER, f"data.encoder={run}", f"model.encoder={file}", "data.sample=100", "epochs=1", *QUICK)
    assert dlrun(*words)[0] == 0
    assert "already finished" in dlrun(*words)[1]
    changed = Encoder({n: w + 0.01 for n, w in old.weights.items()}, old.sizes, old.words, old.tokenizer, old.lower)
    file.write_bytes(changed.content())
    status, out, err = dlrun(*words)
    assert status == 0, out + err
    assert "the data changed since" in out
    file.unlink()
    folders = set(Path("runs").rglob("run.json"))
    status, out, err = dlrun(*words, "seed=7")
    assert status == 2
    assert "there is no file" in err
    assert "Traceback" not in out + err
    assert set(Path("runs").rglob("run.json")) == folders


def test_the_average_of_language_models_averages_their_probabilities() -> None:
    losses = [torch.tensor([1.0, 0.1]), torch.tensor([2.0, 3.0])]
    expected = -torch.log(torch.stack([torch.exp(-each) for each in losses]).mean(dim=0))
    assert torch.allclose(LanguageModeling.average(None, losses), expected)  # type: ignore[arg-type]


def test_the_average_of_confident_language_models_keeps_the_digits_of_their_losses() -> None:
    losses = [torch.tensor([1e-9, 200.0]), torch.tensor([3e-9, 300.0]), torch.tensor([5e-9, 400.0])]
    average = LanguageModeling.average(None, losses)  # type: ignore[arg-type]
    assert average.dtype == torch.float32
    assert average.tolist() == pytest.approx([3e-9, 200 + math.log(3)], rel=1e-6)


def test_the_next_word_of_an_ensemble_keeps_tiny_probabilities() -> None:
    dims = LanguageDims(5)
    models = [LanguageModel(dims, embedding=4, hidden=4, layers=1) for _ in range(2)]
    for model in models:
        with torch.no_grad():
            model.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 0.0, -1000.0]))
    logs, _ = Generator(models, Vocabulary(["<unk>", "<pad>", "<end>", "a", "b"]))._step(
        torch.tensor([[3]]), [None, None]
    )
    expected = torch.stack([model.next_words(torch.tensor([[3]]), None)[0][0] for model in models]).double()
    torch.testing.assert_close(logs.double(), expected.logsumexp(dim=0) - math.log(2))
    assert logs[4] < -900


def test_a_baseline_knows_only_the_classes_of_its_training_texts(dlrun: Dlrun, here: Path) -> None:
    rows = [("great great film", "good"), ("awful awful film", "bad"), ("so so film", "middling")] * 12
    table = pd.DataFrame(rows, columns=["review", "opinion"])
    table["part"] = np.where((np.arange(36) < 6) | (table["opinion"] == "bad"), "valid", "train")
    table.to_csv("r.csv", index=False)
    words = ("data.target=opinion", "data.split=column", "data.valid_column=part", *QUICK)
    status, out, err = dlrun(*(w for w in OWN if not w.startswith("data.valid=")), *words)
    assert status == 0, out + err
    _, baseline = summary()["baselines"].values()
    assert baseline["valid/accuracy"] == pytest.approx(4 / 16)  # the two known classes are right, the unknown one never


def test_predictions_have_the_tables_own_columns_and_ids_keep_their_zeros(dlrun: Dlrun, here: Path) -> None:
    rows = [f"00{row:02d},0{row},it is {'good' if row % 2 else 'bad'} {row},{row % 2}" for row in range(40)]
    (here / "a.csv").write_text("id,prediction,review,is_good\n" + "\n".join(rows))
    words = ("task=text", "data.path=a.csv", "data.text=review", "data.target=is_good", "epochs=1")
    status, out, err = dlrun(*words, *QUICK)
    assert status == 0, out + err
    found = dlrunner.load("runs/latest").predictions
    assert list(found)[:5] == ["row", "id", "prediction", "is_good", "prediction_2"]
    assert found["id"].tolist() == [f"00{row - 2:02d}" for row in found["row"]]
    assert found["prediction"].tolist() == [f"0{row - 2}" for row in found["row"]]
    assert found["is_good"].astype(int).tolist() == [row % 2 for row in found["row"]]


def test_a_run_reads_the_column_it_was_trained_on(dlrun: Dlrun, here: Path) -> None:
    table = reviews().rename(columns={"review": "body", "opinion": "text"})
    table.to_csv("r.csv", index=False)
    words = [word for word in OWN if not word.startswith("data.text")]
    status, out, err = dlrun(*words, "data.text=body", "data.target=text", *QUICK)
    assert status == 0, out + err
    status, out, err = dlrun("predict", "runs/latest", "r.csv", "--out", "a.csv")
    assert status == 0, out + err
    answer = pd.read_csv("a.csv")
    assert (answer["prediction"] == table["text"]).mean() > 0.95
    status, _, err = dlrun("predict", "runs/latest", "")
    assert status == 2
    assert "the text is empty" in err
    assert dlrun("predict", "runs/latest", "~ a great film")[0] == 0
    status, _, err = dlrun("predict", "runs/latest", "caf\udce9")
    assert status == 2
    assert "not in UTF-8" in err
    status, _, err = dlrun("generate", "runs/latest", "a film")
    assert status == 2
    assert "has no method generate" in err


def test_one_text_in_a_batch_is_refused_before_training(dlrun: Dlrun, here: Path) -> None:
    reviews().to_csv("r.csv", index=False)
    words = [word for word in OWN if not word.startswith("batch_size")]
    status, _, err = dlrun(*words, "data.target=opinion", "batch_size=1", *QUICK)
    assert status == 2
    assert "two training rows in a batch" in err


@pytest.mark.parametrize("count", [2, 3, 5])
def test_outputs_of_several_processes_are_gathered_in_stream_order(count: int, here: Path) -> None:
    small = ("data.tokenizer=whitespace", "data.min_freq=1", "batch_size=5", "task.bptt=4", "task.valid_batch_size=5")
    texts = " ".join(f"w{word}" for word in range(103))
    pd.DataFrame({"text": [texts] * 2, "part": [0, 1]}).to_csv("words.csv", index=False)
    words = ("task=lm", "data.path=words.csv", "data.text=text", "data.split=column", "data.valid_column=part")
    checked = plan(compose([*words, *small]))
    task = checked.build_task(checked.build_data(), 0)
    lengths = set()
    for batch in task.batches("valid", 0, checked.phases[0]):
        lengths.add(len(batch.inputs))
        shards = torch.cat([task.shard(batch, index, count).targets for index in range(count)])
        order = task.shard_order(batch, count)
        assert order is not None
        assert torch.equal(shards[order.argsort()], batch.targets)
    assert lengths == {2, 3}  # in the last sequence some next words are not known
