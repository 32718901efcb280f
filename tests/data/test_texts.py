"""Texts as people have them become numbers of words, and nothing bad in them passes without a sentence."""

from __future__ import annotations

import io
import json
import tarfile
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dlrunner.data.core.cache import cache_dir
from dlrunner.data.core.splitting import TEST, TRAIN, UNUSED, VALID
from dlrunner.data.imdb.dataset import ImdbData
from dlrunner.data.imdb.synthetic import write_synthetic_imdb
from dlrunner.data.texts import tokens
from dlrunner.data.texts.dataset import TextData
from dlrunner.data.texts.loaders import StreamLoader, TextLoader, num_steps, piece_lengths, similar_lengths
from dlrunner.data.texts.tokens import cached, tokenize, tokens_of
from dlrunner.data.texts.vocabulary import Vocabulary
from dlrunner.errors import ConfigError, DataError
from dlrunner.tasks.text.inputs import read_texts

REVIEWS = [
    "I really liked it!<br /><br />The best film, by far.",
    "It isn't good. Don't watch it.",
    "The film was a film about a film.",
    "A good one, the best I'd seen.",
]


def words_of(table, row: int) -> list[str]:  # type: ignore[no-untyped-def]
    return [table.vocabulary.words[code] for code in table.document(row)]


def test_spacy_splits_as_the_lesson_has_it() -> None:
    assert tokens_of("Don't!<br />It's GOOD...", "spacy", True) == ["do", "n't", "!", "\n", "it", "'s", "good", "..."]
    assert tokens_of("Don't", "spacy", False) == ["Do", "n't"]


def test_one_process_and_several_give_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two new processes would import spaCy, for 4 seconds.
    monkeypatch.setattr("dlrunner.data.texts.tokens.get_context", lambda method: get_context("fork"))
    texts = [f"{text} {number % 7}" for number in range(300) for text in REVIEWS]
    alone, shared = tokenize(texts, "spacy", True, processes=1), tokenize(texts, "spacy", True, processes=2)
    assert alone.words == shared.words
    assert np.array_equal(alone.codes, shared.codes)
    assert np.array_equal(alone.ends, shared.ends)
    assert [alone.words[code] for code in alone.codes[: alone.ends[0]]] == tokens_of(texts[0], "spacy", True)


def test_the_cache_is_read_and_rebuilt_when_it_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    first = cached("digest", "spacy", True, lambda: REVIEWS)
    again = cached("digest", "spacy", True, lambda: pytest.fail("the texts were read again"))
    assert again.words == first.words
    assert np.array_equal(again.codes, first.codes)
    folder = cache_dir() / "tokens"
    files = list(folder.glob("*.npz"))
    whole = {file: file.read_bytes() for file in files}
    for file in files:
        file.write_bytes(whole[file][: len(whole[file]) // 2])
    assert np.array_equal(cached("digest", "spacy", True, lambda: REVIEWS).codes, first.codes)
    assert any(file.read_bytes() == whole[file] for file in files)


def test_the_vocabulary_is_sorted_by_frequency_then_alphabet_and_starts_with_the_two_marks() -> None:
    tokens = tokenize(["b a a c", "c b d <unk>", "z z z z"], "whitespace", True)
    train = np.array([True, True, False])
    found = Vocabulary.of(tokens, train, 1, None, with_end=True)
    assert found.words == ["<unk>", "<pad>", "<eos>", "a", "b", "c", "d"]
    assert Vocabulary.of(tokens, train, 2, None, with_end=False).words == ["<unk>", "<pad>", "a", "b", "c"]
    assert Vocabulary.of(tokens, train, 1, 4, with_end=False).words == ["<unk>", "<pad>", "a", "b"]
    assert found.encode_all(tokens).tolist() == [4, 3, 3, 5, 5, 4, 6, 0, 0, 0, 0, 0]
    assert json.loads(found.to_json()) == found.words
    with pytest.raises(DataError, match="no word occurs 9 times"):
        Vocabulary.of(tokens, train, 9, None, with_end=True)


def test_a_folder_a_file_of_lines_and_a_table_give_the_same_words(here: Path) -> None:
    (here / "folder").mkdir()
    for number, text in enumerate(REVIEWS):
        (here / "folder" / f"{number}.txt").write_text(text)
    (here / "lines.txt").write_text("\n".join(REVIEWS) + "\n")
    pd.DataFrame({"id": range(4), "review": REVIEWS}).to_csv(here / "table.csv", index=False)
    pd.DataFrame({"id": range(4), "review": REVIEWS}).to_parquet(here / "table.parquet")
    tables = [
        TextData(here, path=name, min_freq=1, valid=0.25, text=column).read()
        for name, column in (
            ("folder", None), ("lines.txt", None), ("table.csv", None), ("table.parquet", "review"),
        )
    ]  # fmt: skip
    for table in tables:
        assert [words_of(table, row) for row in range(4)] == [words_of(tables[0], row) for row in range(4)]
        assert (table.split == VALID).sum() == 1
    assert tables[0].names[0] == "0.txt"
    assert tables[1].names[0] == "line 1"


def test_token_files_stay_as_they_are_with_their_own_unk_and_empty_lines(here: Path) -> None:
    (here / "wiki.train.tokens").write_text(" = Title = \n\n the <unk> of it \n")
    (here / "wiki.valid.tokens").write_text(" the it \n")
    data = TextData(
        here, path="wiki.train.tokens", valid_path="wiki.valid.tokens", tokenizer="whitespace", lower=False, min_freq=1
    )
    table = data.read()
    assert table.lengths.tolist() == [3, 0, 4, 2]
    assert words_of(table, 2) == ["the", "<unk>", "of", "it"]
    assert table.document(2)[1] == 0
    assert table.split.tolist() == [TRAIN, TRAIN, TRAIN, VALID]


def test_plain_text_is_a_table_where_a_column_is_named_and_else_a_text_a_line(here: Path) -> None:
    (here / "mails.txt").write_text("nr\tbody\n" + "".join(f"{row}\tbig boat\n" for row in range(20)))
    (here / "mails.data.txt").write_text("a big boat\n" * 20)
    table = TextData(here, path="mails.txt", text="body", min_freq=1).read()
    assert len(table.split) == 20
    assert set(table.vocabulary.words) == {"<unk>", "<pad>", "<eos>", "big", "boat"}
    lines = TextData(here, path="mails.data.txt", min_freq=1).read()
    assert (len(lines.split), lines.column) == (20, None)
    assert read_texts(Path("mails.txt"), "body", None).texts == ["big boat"] * 20
    (here / "texts").mkdir()
    (here / "texts" / "a.txt").write_text("a big boat")
    with pytest.raises(ConfigError, match=r"data\.text: .*texts is not a table"):
        TextData(here, path="texts", text="body").read()


def test_texts_of_several_tables_are_named_by_their_file_and_row(here: Path) -> None:
    (here / "parts").mkdir()
    (here / "parts" / "1.csv").write_text("text,label\none,a\ntwo,b\n")
    (here / "parts" / "2.csv").write_text("text,label\nthree,a\nfour,b\n")
    (here / "valid.csv").write_text("text,label\none,a\ntwo,b\n")
    data = TextData(here, path="parts", valid_path="valid.csv", labels=True, target="label", text="text", min_freq=1)
    assert list(data.read().names) == [
        *(f"parts/{part}.csv, row {row}" for part in (1, 2) for row in (2, 3)),
        *("valid.csv, row 2", "valid.csv, row 3"),
    ]
    alone = TextData(here, path="parts", labels=True, target="label", text="text", min_freq=1, valid=0.5)
    assert list(alone.read().names) == [f"{part}.csv, row {row}" for part in (1, 2) for row in (2, 3)]


def test_a_bad_label_of_the_validation_table_is_named_by_its_file_and_row(here: Path) -> None:
    (here / "train.csv").write_text("text,good,bad\none,1,0\ntwo,0,1\nthree,1,1\n")
    (here / "valid.csv").write_text("text,good,bad\none,1,0\ntwo,2,0\n")
    data = TextData(here, path="train.csv", valid_path="valid.csv", labels=True, target=["good", "bad"], text="text")
    with pytest.raises(DataError, match=r"valid\.csv, row 3: .*good"):
        data.read()


def test_lines_of_two_files_are_named_by_their_file_and_line(here: Path) -> None:
    (here / "a.txt").write_text("one\ntwo\n")
    (here / "b.txt").write_text("one\n")
    table = TextData(here, path="a.txt", valid_path="b.txt", min_freq=1).read()
    assert list(table.names) == ["a.txt, line 1", "a.txt, line 2", "b.txt, line 1"]


def test_folders_named_train_valid_and_test_tell_the_split_and_the_classes(here: Path) -> None:
    for part in ("train", "valid", "test"):
        for label in ("good", "bad", "so-so"):
            folder = here / "texts" / part / label
            folder.mkdir(parents=True)
            (folder / "1.txt").write_text(f"{label} film")
    table = TextData(here, path="texts", labels=True, min_freq=1).read()
    assert {name: int(part) for name, part in zip(table.names, table.split, strict=True)} == {
        f"{part}/{label}/1.txt": code
        for part, code in (("train", TRAIN), ("valid", VALID), ("test", TEST))
        for label in ("good", "bad", "so-so")
    }
    assert table.target is not None
    assert table.target.kind == "multiclass"
    assert table.target.classes == ["bad", "good", "so-so"]


def test_folders_in_class_folders_are_splits_or_belong_to_the_class(here: Path) -> None:
    for label in ("good", "bad"):
        for part in ("train", "valid"):
            write(here, f"pack/texts/{label}/{part}/1.txt", b"a text")
        for year in ("2023", "2024"):
            write(here, f"years/{label}/{year}/1.txt", b"a text")
    table = TextData(here, path="pack", labels=True, min_freq=1, valid=0.5).read()
    assert table.target is not None
    assert table.target.classes == ["bad", "good"]
    assert table.split.tolist() == [TRAIN if "/train/" in name else VALID for name in table.names]
    table = TextData(here, path="years", labels=True, min_freq=1, valid=0.5).read()
    assert table.target is not None
    assert table.target.classes == ["bad", "good"]
    assert any("belong to the class that they are in" in note for note in table.notes)
    model = TextData(here, path="years", min_freq=1, valid=0.5).read()
    assert not any("class" in note for note in model.notes)


def test_folders_of_texts_may_begin_with_an_at_sign_and_hidden_texts_are_told(here: Path) -> None:
    for folder in ("@me", "@you", ".old"):
        for number in range(4):
            write(here, f"t/{folder}/{number}.txt", b"a text")
    table = TextData(here, path="t", labels=True, min_freq=1, valid=0.25).read()
    assert table.target is not None
    assert table.target.classes == ["@me", "@you"]
    assert any("not used, hidden or in a folder of the system: 4 texts (.old/0.txt" in note for note in table.notes)


def test_samples_are_random_and_the_rest_is_not_used(here: Path) -> None:
    (here / "lines.txt").write_text("\n".join(f"text number {n}" for n in range(50)))
    table = TextData(here, path="lines.txt", min_freq=1, valid=0.2, sample=10, sample_valid=5).read()
    assert [(table.split == part).sum() for part in (TRAIN, VALID, TEST, UNUSED)] == [10, 5, 0, 35]
    with pytest.raises(ConfigError, match=r"data\.sample: 99 documents requested, but there are only 40"):
        TextData(here, path="lines.txt", min_freq=1, valid=0.2, sample=99).read()


def write(here: Path, name: str, content: bytes) -> str:
    (here / name).parent.mkdir(parents=True, exist_ok=True)
    (here / name).write_bytes(content)
    return name


@pytest.mark.parametrize(
    ("files", "settings", "told"),
    [
        ({"a/readme.md": b"x"}, {"path": "a"}, "a holds no texts"),
        ({"a.txt": b" \n \n"}, {"path": "a.txt"}, "a.txt is empty"),
        ({"a/1.txt": b"one text alone"}, {"path": "a"}, "leaves no rows of 1 for validation"),
        ({"a/1.txt": b"fine", "a/2.txt": b"caf\xe9"}, {"path": "a"}, "2.txt is not text in UTF-8 (byte 3)"),
        ({"a/1.txt": b"fine", "a/2.txt": b"a\0b"}, {"path": "a"}, "2.txt contains a NUL character"),
        ({}, {"path": "nowhere"}, "there is no file or folder nowhere"),
        ({"a.pdf": b"x"}, {"path": "a.pdf"}, "neither the suffix of a table"),
        ({"a.csv": b"x,y\n1,2\n"}, {"path": "a.csv"}, "data.text: is missing"),
        ({"a.csv": b"x,y\na,b\n"}, {"path": "a.csv", "text": "z"}, "has no column 'z'"),
        ({"a.csv": b"x,y\na,b\n,c\n"}, {"path": "a.csv", "text": "x"}, "row 3: the text is missing"),
        ({"a.csv": b"t,y\na,b\nb,b\n"}, {"path": "a.csv", "text": "t", "labels": True, "target": "y"}, "is b in every row"),
        ({"a.csv": b"t,y\na,b\nb,b\n"}, {"path": "a.csv", "text": "t", "labels": True}, "data.target: is missing"),
        ({"a.csv": b"t,y\na,1.5\nb,2.5\nc,3.5\n"}, {"path": "a.csv", "text": "t", "labels": True, "target": "y"}, "holds numbers"),
        ({"a/1.txt": b"x", "a/2.txt": b"y"}, {"path": "a", "labels": True}, "1.txt is in none"),
        ({"a/b/1.txt": b"x", "a/b/2.txt": b"y"}, {"path": "a", "labels": True}, "all texts are in one"),
        ({"a/train/1.txt": b"x", "a/test/2.txt": b"y"}, {"path": "a", "labels": True}, "test/2.txt is in none"),
        ({"a/1.txt": b"x", "a/b/2.txt": b"y"}, {"path": "a", "valid_path": "a/b"}, "validation texts would be trained on"),
        ({"a/train/1.txt": b"x", "a/test/2.txt": b"y", "b.txt": b"z"}, {"path": "a", "valid_path": "b.txt"}, "already has validation folders"),
        ({"a.txt": b"x\ny\n"}, {"path": "a.txt", "split": "stratified"}, "stratified needs classes"),
        ({"a.txt": b"x\ny\n"}, {"path": "a.txt", "encoder": "none.pt"}, "there is no file none.pt"),
        ({"a.txt": b"x\ny\n", "e.pt": b"z"}, {"path": "a.txt", "encoder": "e.pt"}, "is not an encoder"),
        ({"a.txt": b"x\ny\n", "run/config.yaml": b"z"}, {"path": "a.txt", "encoder": "run"}, "has no encoder.pt"),
        ({"a.txt": b"x\ny\n"}, {"path": "a.txt", "valid_path": "a.txt", "split": "random"}, "cannot be combined with data.valid_path"),
        ({"a.txt": b"x\ny\nz\n"}, {"path": "a.txt", "valid": 0.4}, "no word occurs 2 times"),
    ],
)  # fmt: skip
def test_bad_texts_are_answered_in_a_sentence(
    here: Path, files: dict[str, bytes], settings: dict[str, object], told: str
) -> None:
    for name, content in files.items():
        write(here, name, content)
    with pytest.raises((DataError, ConfigError)) as found:
        TextData(here, **{"valid": 0.5, **settings}).read()  # type: ignore[arg-type]
    assert told in str(found.value)


def imdb_archive(path: Path, prefix: str = "aclImdb/") -> None:
    """Write a tiny archive in the publisher's layout, with the files that are no reviews."""
    with tarfile.open(path, "w:gz") as archive:
        names = [f"train/{c}/{n}_{9 if c == 'pos' else 2}.txt" for c in ("pos", "neg") for n in range(5)]
        names += [f"train/unsup/{n}_0.txt" for n in range(5)] + ["train/urls_pos.txt", "imdb.vocab", "README"]
        names += [f"test/{c}/{n}_{9 if c == 'pos' else 2}.txt" for c in ("pos", "neg") for n in range(5)]
        for name in names:
            content = f"a review {name.replace('/', ' ')}".encode()
            member = tarfile.TarInfo(prefix + name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_imdb_is_split_as_in_the_lesson_or_honestly(here: Path) -> None:
    imdb_archive(here / "aclImdb_v1.tar.gz")
    lesson = ImdbData(here, source="real", min_freq=1).read()
    assert [(lesson.split == part).sum() for part in (TRAIN, VALID, TEST)] == [15, 10, 0]
    assert all(name.startswith("test/") for name in np.array(lesson.names)[lesson.split == VALID])
    honest = ImdbData(here, source="real", min_freq=1, labels=True, split="stratified", valid=0.2).read()
    assert [(honest.split == part).sum() for part in (TRAIN, VALID, TEST, UNUSED)] == [8, 2, 10, 5]
    assert honest.target is not None
    assert honest.values is not None
    names = np.array(honest.names)
    assert sorted(name.split("/")[1] for name in names[honest.split == VALID]) == ["neg", "pos"]
    assert all((honest.values[row] == 1) == ("/pos/" in names[row]) for row in np.flatnonzero(honest.split != UNUSED))


def test_imdb_in_a_folder_and_in_an_archive_are_the_same(here: Path) -> None:
    imdb_archive(here / "aclImdb_v1.tar.gz")
    packed = ImdbData(here, source="real", min_freq=1)
    digest, codes = packed.identity().digest, packed.read().codes
    (here / "open").mkdir()
    with tarfile.open(here / "aclImdb_v1.tar.gz") as archive:
        archive.extractall(here / "open", filter="data")
    unpacked = ImdbData(here, path="open/aclImdb", min_freq=1)
    assert unpacked.identity().digest == digest
    assert np.array_equal(unpacked.read().codes, codes)
    changed = here / "open" / "aclImdb" / "test" / "pos" / "0_9.txt"
    changed.write_text("another review")
    assert ImdbData(here, path="open/aclImdb", min_freq=1).identity().digest != digest


def test_an_imdb_archive_that_is_cut_short_or_lacks_a_part_is_told(here: Path) -> None:
    imdb_archive(here / "aclImdb_v1.tar.gz")
    whole = (here / "aclImdb_v1.tar.gz").read_bytes()
    (here / "aclImdb_v1.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is damaged"):
        ImdbData(here, source="real").identity()
    folder = here / "aclImdb" / "train" / "pos"
    folder.mkdir(parents=True)
    (folder / "0_9.txt").write_text("one review")
    with pytest.raises(DataError, match="is missing the reviews of train/neg, test/pos, test/neg"):
        ImdbData(here, path="aclImdb").identity()


def test_the_stand_in_knows_its_own_floor() -> None:
    archive, floors = write_synthetic_imdb(cache_dir() / "synthetic")
    assert 5 < floors["perplexity"] < 50
    assert 0.7 < floors["accuracy"] < 0.95
    data = ImdbData(Path(), source="synthetic", min_freq=1)
    assert data.identity().best_achievable == floors["perplexity"]
    assert ImdbData(Path(), source="synthetic", labels=True).identity().best_achievable == floors["accuracy"]
    assert archive.name == "aclImdb_v1.tar.gz"


def test_every_word_of_a_stream_but_the_first_is_a_target_once() -> None:
    for length in (23, 25, 40, 41):
        stream = torch.arange(2, length + 2, dtype=torch.int32)
        for columns in (1, 3, 4):
            steps = num_steps(stream, columns)
            lengths = piece_lengths(steps, 5, vary=False, seed=0, epoch=0)
            batches = list(StreamLoader(stream, columns, lengths))
            told = torch.cat([batch.targets for batch in batches])
            assert sorted(told.tolist()) == list(range(3, length + 2))
            for batch in batches:
                words, following, *_ = batch.inputs
                known = following >= 0
                assert torch.equal(following[known], words[known] + 1)
                assert torch.equal(batch.targets, following[known])


def test_a_column_goes_on_where_its_last_piece_ended() -> None:
    stream = torch.arange(2, 103, dtype=torch.int32)
    batches = list(StreamLoader(stream, 4, piece_lengths(25, 7, vary=True, seed=3, epoch=0)))
    columns = torch.cat([batch.inputs[0] for batch in batches])
    assert torch.equal(columns.t().flatten(), stream[:-1])


def test_pieces_vary_with_the_epoch_and_not_with_the_hour() -> None:
    first, second = (piece_lengths(5000, 70, vary=True, seed=1, epoch=epoch) for epoch in (0, 1))
    assert first == piece_lengths(5000, 70, vary=True, seed=1, epoch=0)
    assert first != second
    assert sum(first) == sum(second) == 5000
    assert 60 < np.mean(first) < 75
    assert piece_lengths(150, 70, vary=False, seed=1, epoch=0) == [70, 70, 10]


def test_the_rate_is_scaled_by_the_length_only_when_asked() -> None:
    stream = torch.arange(2, 103, dtype=torch.int32)
    assert [batch.rate for batch in StreamLoader(stream, 4, [10, 15])] == [1.0, 1.0]
    assert [batch.rate for batch in StreamLoader(stream, 4, [10, 15], 10)] == [1.0, 1.5]


def test_batches_hold_texts_of_similar_length_and_every_text_once() -> None:
    lengths = np.random.default_rng(0).integers(1, 500, 1000)
    batches = similar_lengths(lengths, 16, seed=0, epoch=0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(1000))
    spans = [np.ptp(lengths[batch]) for batch in batches]
    assert np.mean(spans) < 30
    assert [b.tolist() for b in batches] == [b.tolist() for b in similar_lengths(lengths, 16, seed=0, epoch=0)]
    assert [b.tolist() for b in batches] != [b.tolist() for b in similar_lengths(lengths, 16, seed=0, epoch=1)]
    assert min(len(batch) for batch in similar_lengths(lengths[:33], 16, seed=0, epoch=0)) > 1


def test_texts_are_padded_at_their_ends_and_an_empty_one_is_one_pad() -> None:
    codes, ends = torch.tensor([5, 6, 7, 8], dtype=torch.int32), np.array([1, 1, 4])
    (batch,) = TextLoader(codes, ends, torch.tensor([0, 1, 2]), [np.array([2, 0, 1])])
    words, lengths = batch.inputs
    assert words.tolist() == [[6, 7, 8], [5, 1, 1], [1, 1, 1]]
    assert lengths.tolist() == [3, 1, 1]
    assert batch.targets.tolist() == [2, 0, 1]


# All 50,000 reviews are tokenized; the same code reads the small folders and tables of the other tests.
@pytest.mark.data
@pytest.mark.slow
def test_the_published_reviews_give_the_published_vocabulary(real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = ImdbData(real_data, source="real", min_freq=10).read()
    assert table.vocabulary.words[:12] == ["<unk>", "<pad>", "the", ",", ".", "and", "a", "of", "to", "is", "it", "in"]
    words = int(table.lengths[table.split == TRAIN].sum()) + 75_000
    assert abs(words / 20_621_966 - 1) < 0.001
    assert abs(len(table.vocabulary.words) / 34_945 - 1) < 0.005


def test_the_columns_of_a_table_are_the_users_own(here: Path) -> None:
    table = pd.DataFrame(
        {"text": [f"text {n}" for n in range(8)], "name": ["p", "n"] * 4, "part": ["train", "test"] * 4}
    )
    table["folder"] = ["x", "y", "z", "x"] * 2
    table.to_csv(here / "t.csv", index=False)
    found = TextData(here, path="t.csv", text="text", labels=True, target="name", min_freq=1, valid=0.25).read()
    assert found.target is not None
    assert found.target.classes == ["n", "p"]
    assert [(found.split == part).sum() for part in (TRAIN, VALID, TEST)] == [6, 2, 0]
    assert found.names[0] == "row 2"
    with pytest.raises(ConfigError, match=r"data\.target: is missing"):
        TextData(here, path="t.csv", text="text", labels=True, min_freq=1).read()


def test_what_stands_in_test_never_trains_whatever_the_split(here: Path) -> None:
    for part in ("train", "test"):
        for label in ("good", "bad"):
            for number in range(4):
                write(here, f"t/{part}/{label}/{number}.txt", b"a text")
    table = TextData(here, path="t", labels=True, split="stratified", valid=0.25, min_freq=1).read()
    names = np.array(table.names)
    assert all(name.startswith("test/") for name in names[table.split == TEST])
    assert not any(name.startswith("test/") for name in names[table.split != TEST])
    assert (table.split == VALID).sum() == 2


def test_a_class_may_be_called_dev_where_there_is_no_train(here: Path) -> None:
    for label in ("dev", "ops"):
        for number in range(4):
            write(here, f"t/{label}/{number}.txt", b"a text")
    table = TextData(here, path="t", labels=True, min_freq=1, valid=0.25).read()
    assert table.target is not None
    assert table.target.classes == ["dev", "ops"]
    assert (table.split == VALID).sum() == 2


def test_texts_may_say_na_and_lines_may_end_in_two_signs(here: Path) -> None:
    (here / "t.csv").write_text("text,y\nNA,a\nnull,b\nfine,a\nbad,b\n")
    data = TextData(here, path="t.csv", text="text", labels=True, target="y", min_freq=1, split="last_rows", valid=1)
    table = data.read()
    assert [words_of(table, row) for row in range(2)] == [["na"], ["null"]]
    write(here, "a.txt", b"one line\r\nanother line\r\n")
    lines = TextData(here, path="a.txt", min_freq=1, valid=0.5).read()
    assert lines.lengths.tolist() == [2, 2]


def test_the_mark_of_the_end_survives_a_small_vocabulary() -> None:
    tokens = tokenize(["a a a b b b c c c"], "whitespace", True)
    words = Vocabulary.of(tokens, np.array([True]), 1, 4, with_end=True).words
    assert words == ["<unk>", "<pad>", "a", "<eos>"]


def test_a_new_table_without_the_column_of_the_texts_names_the_option_of_predict(here: Path) -> None:
    (here / "new.csv").write_text("a,b\nsome words,other words\nmore of them,and again\n")
    with pytest.raises(
        ConfigError, match=r"^column: is missing: which column of new\.csv holds the texts\? It has a, b$"
    ):
        read_texts(Path("new.csv"), None, "body")


@pytest.mark.parametrize("text", ["new/rev.csv", "rev.csv.gz", "texts.zip", "texts.tar.gz"])
def test_the_name_of_a_missing_file_is_no_text(text: str) -> None:
    with pytest.raises(ConfigError, match=f"there is no file {text}"):
        read_texts(text, None, None)


@pytest.mark.parametrize("text", ["my reviews.csv", "reviews/new", "It is " + "very " * 99 + "long: see readme.txt"])
def test_what_may_be_the_name_of_a_missing_file_or_a_text_is_one_with_a_note(text: str) -> None:
    found = read_texts(text, None, None)
    assert found.texts == [text]
    assert found.notes == [f"{text} is read as a text: there is no such file or folder"]
    assert not read_texts("It is good / bad.", None, None).notes


def test_a_named_column_needs_a_table_even_where_a_text_lies_next_to_it(here: Path) -> None:
    (here / "parts").mkdir()
    for part in range(2):
        (here / "parts" / f"{part}.csv").write_text("text,label\n" + "a big boat,x\nsmall,y\n" * 10)
    (here / "parts" / "README").write_text("read me")
    assert len(TextData(here, path="parts", text="text").read().split) == 40
    (here / "parts" / "README.txt").write_text("read me")
    with pytest.raises(ConfigError, match=r"data\.path: parts has tables of several formats: \.csv, \.txt"):
        TextData(here, path="parts", text="text").read()


@pytest.mark.parametrize("separator", [None, ";"])
def test_a_validation_table_without_the_target_is_refused(separator: str | None, here: Path) -> None:
    (here / "train.csv").write_text("text,tags\n" + "one,a; b\ntwo,b\n" * 5)
    (here / "valid.csv").write_text("text,Tags\none,a\ntwo,b\n")
    data = TextData(
        here, path="train.csv", valid_path="valid.csv", labels=True, text="text", target="tags",
        target_separator=separator,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"data\.target: valid\.csv has no column 'tags'; did you mean Tags\?"):
        data.read()


def test_the_tokenizer_does_not_keep_all_words_that_a_server_has_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MOST_KEPT", 2000)
    for number in range(30):
        text = " ".join(f"x{number}y{word}" for word in range(100))
        assert tokens_of(text, "spacy", lower=True) == text.split()
        assert tokens._spacy_tokenizer().vocab.length < 2200
