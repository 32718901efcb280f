"""An encoder brings its vocabulary and its tokenizer to the texts of a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dlrunner.data.imdb.dataset import ImdbData
from dlrunner.data.texts.dataset import TextData
from dlrunner.encoder_file import Encoder, EncoderSizes
from dlrunner.errors import ConfigError
from tests.data.test_texts import imdb_archive


def test_an_encoder_brings_its_words_and_its_tokenizer(here: Path) -> None:
    sizes = EncoderSizes(4, 5, 1, "gru")
    words = ["<unk>", "<pad>", "film", "Film"]
    (here / "e.pt").write_bytes(Encoder({"w": torch.ones(2)}, sizes, words, "whitespace", False).content())
    (here / "a.txt").write_text("Film film. film\nfilm\n")
    table = TextData(here, path="a.txt", valid=0.5, encoder="e.pt").read()
    assert table.document(0).tolist() == [3, 0, 2]
    assert table.encoder == sizes
    assert any("of the encoder" in note for note in table.notes)
    identities = []
    for lower in (True, False):
        (here / "e.pt").write_bytes(Encoder({"w": torch.ones(2)}, sizes, words, "whitespace", lower).content())
        identities.append(TextData(here, path="a.txt", valid=0.5, encoder="e.pt").identity().digest)
    assert identities[0] != identities[1]


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"tokenizer": "whitespace", "lower": False}, ""),
        ({}, ""),
        ({"min_freq": 7}, "data.min_freq: 7 has no effect"),
        ({"max_vocab": 3}, "data.max_vocab: 3 has no effect"),
    ],
)
def test_settings_that_an_encoder_overrules_are_refused(here: Path, settings: dict[str, Any], refused: str) -> None:
    sizes, words = EncoderSizes(4, 5, 1, "gru"), ["<unk>", "<pad>", "film"]
    (here / "e.pt").write_bytes(Encoder({"w": torch.ones(2)}, sizes, words, "whitespace", False).content())
    (here / "a.txt").write_text("Film film. film\nfilm\n")
    imdb_archive(here / "aclImdb_v1.tar.gz")
    for data in (
        TextData(here, path="a.txt", valid=0.5, encoder="e.pt", **settings),
        ImdbData(here, source="real", encoder="e.pt", **settings),
    ):
        if refused:
            with pytest.raises(ConfigError, match=refused):
                data.identity()
        else:
            data.identity()
            tokenized = "tokenized like the encoder's texts: data.tokenizer=whitespace data.lower=false"
            assert (tokenized in data.read().notes) == (not settings)


def test_an_encoder_of_another_tokenizer_is_not_overruled(here: Path) -> None:
    sizes = EncoderSizes(4, 5, 1, "gru")
    (here / "e.pt").write_bytes(Encoder({"w": torch.ones(2)}, sizes, ["<unk>", "<pad>"], "spacy", True).content())
    (here / "a.txt").write_text("Film film. film\nfilm\n")
    for name, value, has in (("tokenizer", "whitespace", "has spacy"), ("lower", False, "has True")):
        data = TextData(here, path="a.txt", encoder="e.pt", **{name: value})  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=f"data.{name}: {value} has no effect .* which {has}"):
            data.identity()
