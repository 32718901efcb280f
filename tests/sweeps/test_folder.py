"""The folder of a sweep."""

from __future__ import annotations

import json
from pathlib import Path

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
