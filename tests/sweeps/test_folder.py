"""The folder of a sweep."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import NoReturn

import pytest

from dlrunner.errors import RunError
from dlrunner.sweeps.folder import SweepDirectory


def test_a_job_frozen_by_an_earlier_version_has_present_names(tmp_path: Path) -> None:
    folder = tmp_path / "jobs" / "0"
    folder.mkdir(parents=True)
    config = {
        "log": {"pictures": False},
        "data": {"_target_": "dlrunner.data.pictures.PictureData", "source": "stand-in"},
        "choices": {"model": "picture_net"},
    }
    (folder / "request.json").write_text(json.dumps({"overrides": ["seed=1"], "config": config}))
    job = SweepDirectory(tmp_path).job(0)
    assert job is not None
    assert job.config == {
        "log": {"plots": False},
        "data": {"_target_": "dlrunner.data.images.dataset.ImageData", "source": "synthetic"},
        "choices": {"model": "image_classifier"},
    }


def test_a_full_disk_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs" / "0").mkdir(parents=True)

    def full(path: Path, sync: bool = True) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("dlrunner.sweeps.folder.atomic_file", full)
    folder = SweepDirectory(tmp_path)
    for write in (lambda: folder.write_record(0, {}), lambda: folder.end(0, {}), lambda: folder.start(0, tmp_path)):
        with pytest.raises(RunError, match="the disk is full"):
            write()
