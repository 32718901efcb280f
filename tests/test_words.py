"""The project's old private words are gone from code, settings and documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PLACES = ("src", "conf", "docs", "benchmarks", "scripts", "README.md", "CONTRIBUTING.md", "Makefile")
ENDINGS = (".py", ".yaml", ".md", ".j2", ".js", ".css")
EXCEPTIONS = ("src/dlrunner/renamed.py",)
"""Translates old names, and so has to name them."""

OLD_WORDS = (
    "stand-in",
    "stand-ins",
    "mind:",
    "looks at each example",
    "looked at once",
    "is looked for",
    "earned",
    "earned again",
    "earn",
    "rests on",
    "rests on the start values",
    "rest on",
    "goes on after",
    "goes on from",
    "done already",
    "done once",
    "twins",
    "leases",
    "yardstick",
    "did not suffice",
    "was to be had",
    "is to be had",
    "flattering",
    "flattered",
    "told apart",
    "beside",
    "took over",
    "of one's own",
    "anybody's",
    "by the way",
    "the published figure",
    "passages",
    "taken for",
    "held against",
    "surest",
    "speaks for",
    "what speaks for",
    "yardsticks",
    "is worth telling",
    "forgets the proportions",
    "what it was made from",
    "stands by itself",
    "lacks",
    "anybody",
    "nobody",
    "a try",
    "pictures-overlap-imagenet",
)


def files() -> list[Path]:
    """Return the files that are read by people."""
    found = []
    for name in PLACES:
        path = ROOT / name
        found += [each for each in path.rglob("*") if each.suffix in ENDINGS] if path.is_dir() else [path]
    return sorted(each for each in found if each.relative_to(ROOT).as_posix() not in EXCEPTIONS)


def occurrences(word: str, text: str) -> list[str]:
    """Return the lines of a text with a word, whole, in any case, also in a name; its parts may be on two lines."""
    parts = r"(?:_|\s+(?:#\s*)?)".join(re.escape(part) for part in word.split())
    end = r"(?![^\W_])" if word[-1].isalnum() else ""
    lines = text.splitlines()
    found = re.finditer(rf"(?<![^\W_])(?<!-){parts}{end}", text, re.IGNORECASE)
    return [f"{(number := text.count(chr(10), 0, each.start())) + 1}: {lines[number].strip()}" for each in found]


def test_a_word_is_found_whole_and_across_lines() -> None:
    assert occurrences("beside it", "x\nnext, Beside\n# it") == ["2: next, Beside"]
    assert occurrences("earn", "learn to earnings") == []
    assert occurrences("beside", "self._beside(x)") == ["1: self._beside(x)"]
    assert occurrences("told apart", "def told_apart():") == ["1: def told_apart():"]
    assert occurrences("mind:", "mind: FLAG") == ["1: mind: FLAG"]


@pytest.mark.parametrize("word", OLD_WORDS)
def test_an_old_word_is_gone(word: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}" for path in files() for line in occurrences(word, path.read_text("utf-8"))
    ]
    assert not found, "\n".join(found)
