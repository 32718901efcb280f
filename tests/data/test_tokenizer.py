"""The tokenizer in several processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


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
