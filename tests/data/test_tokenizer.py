"""The tokenizer in several processes, and on texts without blanks."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlrunner.data.texts.tokens import LONGEST, Tokenizer, has_words, tokens_of


def test_a_script_without_a_guard_tokenizes_in_several_processes(here: Path) -> None:
    (here / "script.py").write_text(
        "from dlrunner.data.texts.tokens import tokenize\n"
        "print('started')\n"
        "tokens = tokenize((f'some words {row}' for row in range(2_000)), 'whitespace', True, processes=2)\n"
        "print(len(tokens.words), __file__)\n"
    )
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, check=False, cwd=here)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["started", "2002", str(here / "script.py")]


@pytest.mark.parametrize("character", ["😀", "(", '"', "…"])
def test_many_characters_without_a_blank_take_no_time_that_grows_with_their_square(character: str) -> None:
    tokens_of("warm", "spacy", True)
    started = time.process_time()
    assert "".join(tokens_of(character * 8_000, "spacy", True)) == character * 8_000
    assert time.process_time() - started < 2  # 6 to 9 s at once


@pytest.mark.parametrize("tokenizer", ["spacy", "whitespace"])
@pytest.mark.parametrize("text", ["", "   ", "\t\r\n", " <br /><BR>\u00a0"])
def test_blanks_and_line_breaks_alone_are_a_text_without_words(tokenizer: Tokenizer, text: str) -> None:
    assert not has_words(text)
    assert tokens_of(text, tokenizer, True) == []
    assert has_words(f"{text}.")


def test_only_words_that_are_too_long_are_cut() -> None:
    word = "a" * LONGEST
    assert tokens_of(f"It's {word}, {word}", "spacy", True) == ["it", "'s", word, ",", word]
    assert tokens_of(f"  {word * 2}b\nx", "spacy", True) == ["  ", word, word, "b", "\n", "x"]
    assert tokens_of("", "spacy", True) == []
