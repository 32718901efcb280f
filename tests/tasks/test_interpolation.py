"""Language models interpolated with a neural cache and n-grams: proper probabilities, and the verb `perplexity`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dlrunner.models.language import LanguageDims, LanguageModel
from dlrunner.models.ngram import KneserNey
from dlrunner.tasks.language.interpolation import Component, best_weights, interpolated, stream_probabilities
from tests.conftest import QUICK, Dlrun

NUM_WORDS = 12
SETTINGS = (
    *("task=imdb-lm", "data.source=synthetic", "data.min_freq=1", "data.sample=200", "epochs=1"),
    *("model.embedding=16", "model.hidden=16", "model.layers=1", "optim.lr=2e-2"),
    *("batch_size=16", "task.bptt=20", "task.valid_batch_size=8"),
)


NETS: dict[str, dict[str, Any]] = {
    "full": {},
    "adaptive": {"softmax": "adaptive", "cutoffs": [4, 8]},
    "pointer": {"pointer": 5},
}


def model_of(net: str, seed: int = 0) -> LanguageModel:
    torch.manual_seed(seed)
    model = LanguageModel(LanguageDims(NUM_WORDS), embedding=6, hidden=6, layers=1, **NETS[net])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model.eval()


def mean_of_all(models: list[LanguageModel], stream: list[int], num_columns: int) -> np.ndarray[Any, Any]:
    """Return the probability of each word but the first by net, cache and n-grams with weights .5, .3 and .2."""
    words = np.array(stream, np.int32)
    with torch.inference_mode():
        net, cache = stream_probabilities(models, torch.from_numpy(words), num_columns, 3, 5, [0.7])
    grams = KneserNey(np.arange(200, dtype=np.int32) ** 2 % NUM_WORDS, NUM_WORDS, 4)
    mean: np.ndarray[Any, Any] = 0.5 * net + 0.3 * cache[0] + 0.2 * np.exp(grams.log_probabilities(words))
    return mean


@pytest.mark.parametrize("net", list(NETS))
@pytest.mark.parametrize("num_models", [1, 2])
def test_the_probabilities_of_all_words_sum_to_one(net: str, num_models: int) -> None:
    models = [model_of(net, seed) for seed in range(num_models)]
    for context in ([0], [3, 5, 3], [1, 2, 3, 4, 1, 2, 3, 4, 11, 2]):
        chances = [mean_of_all(models, [*context, word], 1)[-1] for word in range(NUM_WORDS)]
        assert sum(chances) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("net", list(NETS))
def test_a_later_word_changes_no_earlier_probability(net: str) -> None:
    stream = torch.randint(NUM_WORDS, (23,), generator=torch.Generator().manual_seed(0)).tolist()
    found, models = [], [model_of(net)]
    for word in (2, 9):
        stream[15] = word
        found.append(mean_of_all(models, stream, 1))
    assert found[0][:14] == pytest.approx(found[1][:14], rel=1e-6)  # the first word has no probability
    assert not np.isclose(found[0][14:], found[1][14:]).any()


def test_columns_continue_over_pieces_and_every_word_counts_once() -> None:
    stream = torch.randint(NUM_WORDS, (30,), generator=torch.Generator().manual_seed(1)).int()
    with torch.inference_mode():
        found, cached = stream_probabilities([model_of("pointer")], stream, 4, 3, 5, [0.7])
        for start, stop in ((0, 9), (8, 17), (16, 25), (24, 30)):  # columns of eight next words
            alone, cache = stream_probabilities([model_of("pointer")], stream[start:stop], 1, 100, 5, [0.7])
            assert found[start : stop - 1] == pytest.approx(alone, rel=1e-5)
            assert cached[0, start : stop - 1] == pytest.approx(cache[0], rel=1e-5, abs=1e-9)


def test_weights_are_those_that_make_the_tuning_words_most_likely() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.uniform(0.01, 1, 500), rng.uniform(0.01, 0.8, 500)
    grid = np.linspace(0, 1, 1001)
    best = grid[np.argmax([np.log(w * one + (1 - w) * two).mean() for w in grid])]
    assert best_weights([one, two])[0] == pytest.approx(best, abs=2e-3)
    useless = interpolated([Component("net", one, one), Component("cache", one * 1e-3, two)])
    assert useless.perplexity == pytest.approx(np.exp(-np.log(one).mean()), rel=1e-6)


def perplexities(out: str) -> dict[str, Any]:
    return {row["metric"]: row["value"] for row in json.loads(out)}


def test_a_finished_run_is_evaluated_with_cache_and_ngrams(dlrun: Dlrun) -> None:
    dlrun(*SETTINGS, *QUICK, "data.sample_valid=60")
    status, out, err = dlrun("perplexity", "runs/latest", "--cache", "50", "--json")
    assert status == 0, err
    found = perplexities(out)
    recorded = json.loads(Path("runs/latest/summary.json").read_text())["metric"]["value"]
    assert found["valid/perplexity"] == pytest.approx(recorded, rel=1e-5)
    assert list(found) == [f"valid/perplexity{name}" for name in ("", "_cache", "_ngram", "_cache_ngram")]
    assert found["valid/perplexity_ngram"] < found["valid/perplexity"]
    assert "chosen on the last training texts" in err
    status, out, _ = dlrun("perplexity", "runs/latest", "--cache", "0", "--ngram", "0", "--json")
    assert list(perplexities(out)) == ["valid/perplexity"]


def test_weights_are_chosen_on_validation_texts_where_test_texts_are_reported(dlrun: Dlrun) -> None:
    dlrun(*SETTINGS, *QUICK, "data.split=random", "data.valid=0.3", "data.sample_test=60")
    status, out, err = dlrun("perplexity", "runs/latest", "--ngram", "0", "--json")
    assert status == 0, err
    assert list(perplexities(out)) == ["test/perplexity", "test/perplexity_cache"]
    recorded = json.loads(Path("runs/latest/summary.json").read_text())["final"]["test/perplexity"]
    assert perplexities(out)["test/perplexity"] == pytest.approx(recorded, rel=1e-5)
    assert "chosen on the validation texts" in err


@pytest.mark.parametrize(
    ("lengths", "tuned"), [((100, 900), 100), ((0, 990), 99), ((40,) * 24, 123), ((855, 143), 144)]
)
def test_few_large_texts_are_parted_inside_a_text(lengths: tuple[int, ...], tuned: int, dlrun: Dlrun) -> None:
    for part in ("train", "valid"):
        Path("texts", part).mkdir(parents=True)
    for number, length in enumerate(lengths):
        Path("texts", "train", f"{number:02}.txt").write_text("a b " * (length // 2) + "a" * (length % 2))
    Path("texts", "valid", "0.txt").write_text("a b " * 30)
    own = ("task=lm", "data.path=texts", "batch_size=2", "task.bptt=5", "model.hidden=8", "model.embedding=8")
    status, out, err = dlrun(*own, "epochs=1", *QUICK)
    assert status == 0, out + err
    status, _, err = dlrun("perplexity", "runs/latest", "--cache", "0", "--json")
    assert status == 0, err
    assert f"chosen on the last training texts, {tuned} words" in err


def test_changed_texts_are_not_those_of_the_run(dlrun: Dlrun) -> None:
    for part in ("train", "valid"):
        Path("texts", part).mkdir(parents=True)
        for number in range(40):
            Path("texts", part, f"{number}.txt").write_text("one two three four five six " * 5)
    own = ("task=lm", "data.path=texts", "batch_size=2", "task.bptt=5", "model.hidden=8", "model.embedding=8")
    status, out, err = dlrun(*own, "epochs=1", *QUICK)
    assert status == 0, out + err
    assert dlrun("perplexity", "runs/latest", "--cache", "0", "--ngram", "0")[0] == 0
    Path("texts", "valid", "3.txt").write_text("six five four " * 10)
    status, _, err = dlrun("perplexity", "runs/latest", "--cache", "0", "--ngram", "0")
    assert status == 2
    assert "the data is no longer that of" in err


def test_only_a_finished_language_model_has_a_perplexity(dlrun: Dlrun, ratings_csv: Path) -> None:
    dlrun("task=collab", f"data.path={ratings_csv}", "epochs=1", *QUICK)
    status, _, err = dlrun("perplexity", "runs/latest")
    assert status == 2
    assert "is not a language model" in err
    status, _, err = dlrun("perplexity", "runs/latest", "--cache", "-1")
    assert status == 2
    assert "give a number from 0 on" in err
