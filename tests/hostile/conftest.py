"""Two small runs that every test may copy and damage: one model, and an ensemble."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from dlrunner.cli import main
from tests.conftest import QUICK, ratings_table

WORDS = ("task=collab", "data.path=my.csv", "epochs=1", "log.progress=none", *QUICK)


@pytest.fixture(scope="package")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of a run and of an ensemble of two."""
    folder, before = tmp_path_factory.mktemp("trained"), Path.cwd()
    os.chdir(folder)
    ratings_table().to_csv("my.csv", index=False)
    runs = []
    for more in ((), ("ensemble=2",)):
        assert main([*WORDS, *more]) == 0
        runs.append((folder / "runs" / "latest").resolve())
    os.chdir(before)
    return runs[0], runs[1]


@pytest.fixture
def run(trained: tuple[Path, Path], here: Path) -> Path:
    """A copy of the run of one model, as runs/collab/a-00000000."""
    shutil.copy(trained[0].parents[2] / "my.csv", here)
    return Path(shutil.copytree(trained[0], here / "runs" / "collab" / "a-00000000"))


@pytest.fixture
def ensemble(trained: tuple[Path, Path], here: Path) -> Path:
    """A copy of the ensemble, as runs/collab/e-00000000."""
    shutil.copy(trained[1].parents[2] / "my.csv", here)
    return Path(shutil.copytree(trained[1], here / "runs" / "collab" / "e-00000000"))
