"""What lies in the cache may be damaged in any way: it is found, told, and made again; no result rests on it."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dlrunner.data.core.cache import sha256_of, tidy
from dlrunner.data.core.source import ArchiveOrFolder
from dlrunner.data.images.decoding import Pixels
from dlrunner.data.ratings.synthetic import write_synthetic_movielens
from dlrunner.data.rossmann.dataset import RossmannData
from dlrunner.data.texts.tokens import cached
from tests.conftest import QUICK, Dlrun
from tests.data.test_images import cats_and_dogs, read, write
from tests.small_runs import PICTURE_NET, PICTURES

TEXTS = ("it was good", "it was not", "good\0bad and", "ü\u20ac \0")


@pytest.fixture(autouse=True)
def cache(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of one's own."""
    monkeypatch.setenv("DLRUNNER_CACHE", str(here / "cache"))
    tidy.cache_clear()
    yield here / "cache"
    tidy.cache_clear()


def damages(content: bytes, seed: int, count: int = 6) -> Iterator[bytes]:
    """Yield damaged versions of a file: flipped bits, pieces that are missing, zeroed, doubled, or foreign."""
    chance = random.Random(seed)
    for _ in range(count):
        at = chance.randrange(len(content))
        yield content[:at] + bytes([content[at] ^ (1 << chance.randrange(8))]) + content[at + 1 :]
    at = chance.randrange(len(content))
    yield content[:at]
    yield content[:at] + bytes(min(64, len(content) - at)) + content[at + 64 :] + b"\1"
    yield content + content[at:] + b"x"
    yield chance.randbytes(len(content))
    yield b""


def tokens() -> Any:
    found = cached("digest", "whitespace", True, lambda: TEXTS)
    return [found.words, found.codes.tolist(), found.ends.tolist()]


def pixels() -> Any:
    folder = Path("pets")
    table = read(folder if folder.exists() else write(folder, cats_and_dogs(4)))
    return [table.pixels.tolist(), table.digests().tolist()]


def ratings() -> Any:
    folder, floor = write_synthetic_movielens(Path("cache") / "synthetic", 20, 30, 200)
    return [floor, (folder / "ratings.csv").read_text()]


def tables() -> Any:
    return RossmannData(Path("nothing"), source="synthetic", split="last_days", valid=30).read().frame.to_csv()


def digests() -> Any:
    file = Path("a.txt")
    if not file.exists():
        file.write_text("a")
        Path("texts").mkdir()
        Path("texts/b.txt").write_text("b")
    return [sha256_of(file), ArchiveOrFolder(Path("texts")).digest_where(lambda name: True, "all")]


@pytest.mark.parametrize("make", [tokens, pixels, ratings, digests])
def test_any_damage_is_found_told_and_mended(
    make: Callable[[], Any], cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = make()
    assert make() == first
    assert "damaged" not in capfd.readouterr().err
    files = sorted(file for file in cache.rglob("*") if file.is_file())
    assert files
    for number, file in enumerate(files):
        whole = file.read_bytes()
        for content in damages(whole, number):
            if content == whole:
                continue
            file.write_bytes(content)
            assert make() == first, (file, content[:40])
            # What comes after the last pixel is not read, nor the digest of a file that is gone.
            is_read = not content.startswith(whole) and not (make is ratings and file.parent.name == "sha256")
            assert "damaged" in capfd.readouterr().err or not is_read, (file, content[:40])
            assert make() == first
            assert "damaged" not in capfd.readouterr().err


def test_a_damaged_table_of_features_is_made_again(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = tables()
    (file,) = (cache / "tables").iterdir()
    whole = file.read_bytes()
    for content in [*damages(whole, 0, 1)][:2]:
        file.write_bytes(content)
        assert tables() == first
        assert f"{file} is damaged" in capfd.readouterr().err


def test_what_is_no_digest_is_not_taken_for_one(cache: Path) -> None:
    Path("a.txt").write_text("a")
    right = sha256_of(Path("a.txt"))
    (memory,) = (cache / "sha256").iterdir()
    for wrong in (b"x" * 64, b"g" * 64, b"\xff\xfe" * 32, b"A" * 64, b"0" * 64, bytes(64)):
        memory.write_bytes(wrong)
        assert sha256_of(Path("a.txt")) == right


def test_a_run_on_a_damaged_cache_comes_to_the_same_result(dlrun: Dlrun, cache: Path, here: Path) -> None:
    words = (*PICTURES, *PICTURE_NET, "task.precompute=true", "task.augment=false", "freeze_to=-1", *QUICK)
    assert dlrun(*words)[0] == 0
    first = json.loads((here / "runs" / "latest" / "summary.json").read_text())["final"]
    chance = random.Random(0)
    for folder, name in (("features", "*.features"), ("pixels", "*.npy")):
        (file,) = (cache / folder).glob(name)
        content = bytearray(file.read_bytes())
        for _ in range(200):
            content[chance.randrange(len(content) // 2, len(content))] ^= 0x40
        file.write_bytes(content)
        status, _, err = dlrun(*words, "rerun=true")
        assert status == 0
        assert f"{file} is damaged; it is rebuilt" in err
        assert json.loads((here / "runs" / "latest" / "summary.json").read_text())["final"] == first


def test_pictures_that_are_not_used_are_not_even_read(cache: Path, here: Path) -> None:
    table = read(write(here / "pets", cats_and_dogs()), sample=4, sample_valid=2)
    unused = int(np.flatnonzero(table.split == 3)[0]) if (table.split == 3).any() else int((table.split < 0).argmax())
    (file,) = (cache / "pixels").glob("*.npy")
    before = file.stat().st_mtime_ns
    mapped = np.load(file, mmap_mode="r+")
    mapped[unused] ^= 1
    mapped.flush()
    (cache / "pixels" / f"{file.stem}.digests").unlink(missing_ok=True)
    read(here / "pets", sample=4, sample_valid=2).digests()
    changed = file.stat().st_mtime_ns
    read(here / "pets", sample=4, sample_valid=2)
    assert file.stat().st_mtime_ns == changed >= before
    mended = read(here / "pets")
    assert file.stat().st_mtime_ns != changed
    assert list(mended.digests()) == [_digest(picture) for picture in mended.pixels]


def _digest(picture: Pixels) -> int:
    return int.from_bytes(hashlib.blake2b(picture.data, digest_size=8).digest(), "little")


def test_words_with_any_character_come_back_from_the_cache_as_they_were() -> None:
    chance = random.Random(0)
    letters = "ab\0\x01\x7fäß\u2028\u0301\U0001f600"
    for round_ in range(30):
        texts = [" ".join("".join(chance.choices(letters, k=chance.randrange(1, 5))) for _ in range(9)) for _ in "abc"]
        fresh = cached(str(round_), "whitespace", False, lambda texts=texts: texts)  # type: ignore[misc]
        again = cached(str(round_), "whitespace", False, lambda: pytest.fail("read again"))
        assert again.words == fresh.words
        assert np.array_equal(again.codes, fresh.codes)
