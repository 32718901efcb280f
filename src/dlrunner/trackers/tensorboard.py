"""TensorBoard: event files in the run's folder. `tensorboard --logdir runs/TASK` compares runs."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlrunner.tracker import TrackedRun, Tracker


class TensorboardTracker(Tracker):
    """Writes with TensorBoard's own writer; torch's would import torch, which takes 3 s and 250 MB."""

    modules = ("tensorboard",)
    package = "dlrunner[tensorboard]"

    def start(self, run: TrackedRun, known: str | None) -> str:
        """Open a new event file in the folder; the id is the name of the first one."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = run.path / "tensorboard"
        is_known = known is not None and (folder / known).exists()
        self._writer = EventFileWriter(str(folder))
        if known is not None and is_known:
            return known
        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in run.values.items()}
        self._write(hparams_pb(plain, trial_id=run.name), 0)
        for tag, text in {"folder": str(run.path), "overrides": run.overrides}.items():
            self._write(text_pb(tag, text), 0)
        self._writer.flush()
        return max(folder.glob("events.*"), key=lambda file: file.stat().st_mtime_ns).name

    def log(self, rows: Mapping[int, Mapping[str, float]]) -> None:
        """Write scalars, in single precision as in the file format."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        for step, row in rows.items():
            self._write(Summary(value=[Summary.Value(tag=k, simple_value=v) for k, v in row.items()]), step)
        self._writer.flush()

    def finish(self, status: str, results: Mapping[str, float], step: int, plots: Sequence[Path]) -> None:
        """Write the results, the plots as images, and the status as a text."""
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.text.summary_v2 import text_pb

        self.log({step: results})
        for plot in plots:
            content = plot.read_bytes()
            width, height = struct.unpack(">II", content[16:24])  # in the first chunk of a PNG file
            image = Summary.Image(encoded_image_string=content, width=width, height=height)
            self._write(Summary(value=[Summary.Value(tag=f"plots/{plot.stem}", image=image)]), step)
        self._write(text_pb("status", status), step)
        self._writer.close()

    def _write(self, summary: Any, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
