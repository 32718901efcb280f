"""The notebooks run from their first cell to their last, and keep small outputs of that."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


def read(file: Path) -> Any:
    """Read a notebook."""
    nbformat = pytest.importorskip("nbformat", reason="needs the extra dev")
    return nbformat.read(file, as_version=4)


def words(cell: Any) -> str:
    """Return the texts that a cell has put out, without colours, numbers and spaces, which differ between machines."""
    outputs = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.get("outputs", ())]
    text = re.sub(r"\x1b\[\d*m", "", "".join(outputs))
    return re.sub(r"-[0-9a-f]{8}\b|[\d.]*\d(e-\d+)?|\s", "", text)


def test_there_are_three_notebooks() -> None:
    assert {file.stem for file in NOTEBOOKS} == {"own_table", "recommendations", "sweep"}


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_outputs_are_those_of_one_execution_small_and_without_paths_of_a_machine(file: Path) -> None:
    text = file.read_text("utf-8")
    assert len(text) < 150_000
    for place in ("/home/", "/root/", "/tmp/", "/Users/"):
        assert place not in text
    cells = [cell for cell in read(file).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert ".png" not in "".join(map(words, cells)), "the plots of a run are SVG files"


@pytest.mark.slow  # trains; what dlrun and dlrunner.load do is tested elsewhere
@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs(file: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = pytest.importorskip("nbclient", reason="needs the extra dev")
    pytest.importorskip("ipykernel", reason="needs the extra dev")
    commands = here / "bin"
    commands.mkdir()
    (commands / "dlrun").write_text(f'#!/bin/sh\nexec {sys.executable} -m dlrunner "$@"\n')
    (commands / "dlrun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    notebook = read(file)
    stored = [(cell.source, words(cell)) for cell in notebook.cells]
    client.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(here)}}
    ).execute()
    assert [(cell.source, words(cell)) for cell in notebook.cells] == stored
