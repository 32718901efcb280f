"""Synthetic reviews in the layout of IMDB; the best achievable scores are known."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dlrunner.data.core.synthetic import generated

VERSION = 2
ARCHIVE, BEST_SCORES = "aclImdb_v1.tar.gz", "best_scores.json"
NUM_WORDS, NUM_OPINIONS = 90, 30
"""Number of words, and of those among them that are more frequent in good or in bad reviews."""
OPINION, RIGHT, END = 0.2, 0.68, 1 / 40
"""Probabilities that a word is an opinion, that an opinion fits the review, and that the review ends after a word."""
REVIEWS = {"train/pos": 600, "train/neg": 600, "train/unsup": 1200, "test/pos": 300, "test/neg": 300}


def write_synthetic_imdb(folder: Path) -> tuple[Path, dict[str, float]]:
    """Write an archive of reviews, unless it exists, and return it with its best achievable scores.

    The words are a Markov chain: with probability OPINION the next word is an opinion, drawn for a good or a bad
    review, else one of eight that may follow the word before. The best achievable perplexity is that of the chain
    given the sentiment, on the test reviews with their end tokens; the best accuracy is that of the more likely of
    the two chains.
    """
    path = folder / f"imdb-{VERSION}"
    path, perplexity = generated(path, (ARCHIVE, BEST_SCORES), _generate)
    best_scores: dict[str, float] = json.loads((path / BEST_SCORES).read_text())
    assert best_scores["perplexity"] == perplexity
    return path / ARCHIVE, best_scores


def _generate(path: Path) -> float:
    rng = np.random.default_rng(0)
    words = _words(rng)
    chains = _chains(rng)
    with tarfile.open(path / ARCHIVE, "w:gz", compresslevel=6) as archive:
        losses, correct = [], []
        for part, count in REVIEWS.items():
            for number in range(count):
                good = part.endswith("pos") or (part.endswith("unsup") and number % 2 == 0)
                review, uniforms = [-1], rng.random(400)
                for uniform, end in zip(uniforms[::2], uniforms[1::2], strict=True):
                    review.append(int(np.searchsorted(chains[int(good), review[-1]].cumsum(), uniform)))
                    if end < END:
                        break
                rating = 0 if part.endswith("unsup") else 9 if good else 2
                _add(archive, f"aclImdb/{part}/{number}_{rating}.txt", " ".join(words[w] for w in review[1:]))
                if part.startswith("test"):
                    steps = np.log(chains[:, review[:-1], review[1:]]).sum(axis=1)
                    ended = len(review) - 1 < 200
                    ends = (len(review) - 1 - ended) * np.log(1 - END) + ended * np.log(END)
                    losses.append((-(steps[int(good)] + ends), len(review) - 1 + ended))
                    correct.append((steps[1] > steps[0]) == good)
    total, tokens = np.array(losses).sum(axis=0)
    best_scores = {"perplexity": float(np.exp(total / tokens)), "accuracy": float(np.mean(correct))}
    (path / BEST_SCORES).write_text(json.dumps(best_scores))
    return best_scores["perplexity"]


def _chains(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the probabilities of the next word by kind of review and word before, the last row for a first word."""
    plain = NUM_WORDS - NUM_OPINIONS
    follow = np.zeros((NUM_WORDS + 1, NUM_WORDS))
    for row in follow:
        row[rng.choice(plain, 8, replace=False)] = rng.dirichlet(np.full(8, 0.7))
    opinions = np.zeros((2, NUM_WORDS))
    opinions[0, plain::2], opinions[0, plain + 1 :: 2] = RIGHT, 1 - RIGHT
    opinions[1, plain::2], opinions[1, plain + 1 :: 2] = 1 - RIGHT, RIGHT
    opinions /= opinions.sum(axis=1, keepdims=True)
    return (1 - OPINION) * follow + OPINION * opinions[:, None, :]


def _words(rng: np.random.Generator) -> list[str]:
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    found: dict[str, None] = {}
    while len(found) < NUM_WORDS:
        found["".join(rng.choice(syllables, int(rng.integers(2, 4))))] = None
    return list(found)


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    content = text.encode()
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
