"""Repeat a run from its folder and compare: identical, same within rounding, or different, and why."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlrunner.comparison.diff import ROUNDING, differing_conditions, row_difference
from dlrunner.errors import ConfigError
from dlrunner.execution import run as runner
from dlrunner.files.atomic import readable_os_errors
from dlrunner.files.temporary import name_of, remove_abandoned, temporary_folder
from dlrunner.runs.checkpoints import load_weights_file, weights_digest
from dlrunner.runs.predecessor import CHECKPOINTS
from dlrunner.runs.reader import FinishedRun, member_folders, read_history, shorter

GPU_TOLERANCE, GPU_HALF_TOLERANCE = 1e-3, 2e-2
"""Relative tolerance of metrics: in float32 (with TF32 matmuls), and in half precision."""


@dataclass(frozen=True)
class Tolerance:
    """How far a repeated run may differ from the original."""

    relative: float
    reason: str = ""
    """Why more than rounding is expected; empty: equal metrics must come with equal weights."""


ROUNDING_ONLY = Tolerance(ROUNDING)


def replay(original: FinishedRun, data_dir: str | None = None) -> int:
    """Repeat the run, print what changed since, and return 1 if the results differ, else 0.

    Raises:
        ConfigError: the original is not finished: there is nothing to compare with.
    """
    if original.status != "done" or original.summary is None:
        raise ConfigError(f"{shorter(original.path)} is {original.status}; a replay needs a finished run")
    with _scratch_folder(original.path) as scratch:
        config = {**original.config, "runs_dir": str(scratch), "rerun": False, "claim": None}
        config["log"] = {**(config.get("log") or {}), "plots": False, "report": False, "trackers": {}}
        if data_dir:
            config["data_dir"] = data_dir
        outcome = runner.run(config, original.overrides)
        repeated = FinishedRun.read(outcome.path)
        for line in changes(original.summary, repeated.summary or {}):
            print(f"changed: {line}")
        expected = tolerance(original.summary, repeated.summary or {})
        finals = [(run.summary or {}).get("final") or {} for run in (original, repeated)]
        verdict, reason = compare(original.path, repeated.path, expected, finals)
    print(f"replay: {verdict}{f' ({reason})' if reason else ''}")
    return 1 if verdict == "different" else 0


@contextlib.contextmanager
def _scratch_folder(original: Path) -> Iterator[Path]:
    """Make a folder for the second run: next to the original, or in the system's temporary folder.

    Raises:
        RunError: neither can be written.
    """
    with contextlib.ExitStack() as stack:
        folder = None
        with contextlib.suppress(OSError, UnicodeEncodeError):
            str(original).encode()  # a setting cannot hold a path that is not UTF-8
            remove_abandoned(original.parent, is_ours=lambda name: name_of(name) == original.name)
            folder = stack.enter_context(temporary_folder(original))
        if folder is None:
            with readable_os_errors(Path(tempfile.gettempdir())):
                folder = stack.enter_context(temporary_folder(Path(tempfile.gettempdir()) / "dlrunner-replay"))
        yield folder


def tolerance(*summaries: Mapping[str, Any]) -> Tolerance:
    """Return the tolerance: on a GPU the order of summation varies, unless the run is deterministic."""
    for summary in summaries:
        device, precision = str(summary.get("device", "cpu")), str(summary.get("precision", "fp32"))
        if not device.startswith("cpu") and not summary.get("deterministic", False):
            relative = GPU_TOLERANCE if precision == "fp32" else GPU_HALF_TOLERANCE
            reason = f"up to {relative:g} is expected on {device} in {precision} without trainer.deterministic=true"
            return Tolerance(relative, reason)
    return ROUNDING_ONLY


def compare(
    original: Path,
    repeated: Path,
    expected: Tolerance = ROUNDING_ONLY,
    finals: Sequence[Mapping[str, Any]] = (),
) -> tuple[str, str]:
    """Compare two run folders: "identical", "same within rounding" or "different", and where they diverge.

    Args:
        original: its folder.
        repeated: likewise.
        expected: how far they may differ.
        finals: the final metrics of both, which an ensemble has of its average, and a run of its test rows.
    """
    members = {folder.relative_to(run) for run in (original, repeated) for folder in member_folders(run)}
    folders = [Path(), *sorted(members)]
    largest = 0.0
    for folder in folders:
        before, after = read_history(original / folder), read_history(repeated / folder)
        if len(before) != len(after):
            where = f"{folder}: " if folder != Path() else ""
            return "different", f"{where}{len(before)} epochs, now {len(after)}"
        for left, right in zip(before, after, strict=True):
            difference = row_difference(left, right)
            if difference > expected.relative:
                return "different", f"first at epoch {left['epoch']}: {_differing_metrics(left, right)}"
            largest = max(largest, difference)
    if finals:
        difference = row_difference(*finals)
        if difference > expected.relative:
            return "different", f"in the end: {_differing_metrics(*finals)}"
        largest = max(largest, difference)
    if largest > 0:
        verdict, reason = "same within rounding", f"largest relative difference {largest:.1e}"
        return verdict, f"{reason}; {expected.reason}" if expected.reason else reason
    checkpoints = [folder / name for folder in folders if (name := _checkpoint(original / folder))]
    for checkpoint in checkpoints:
        weights = [load_weights_file(run / checkpoint).get("model", {}) for run in (original, repeated)]
        if weights_digest(weights[0]) != weights_digest(weights[1]):
            reason = "equal metrics, but different weights"
            if expected.reason:
                return "same within rounding", f"{reason}; {expected.reason}"
            return "different", reason
    return "identical", "" if checkpoints else "of the metrics; the run has no checkpoint of its weights"


def _checkpoint(folder: Path) -> str | None:
    """Return the checkpoint that is compared: the last one, or the best where that was removed."""
    return next((name for name in CHECKPOINTS if (folder / name).exists()), None)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Sequence[str]:
    """Describe the differences between two summaries that can change a result."""
    lines = []
    for name, old, new in differing_conditions(before, after):
        if name == "code":
            lines.append("the code of dlrunner (or of a plugin)")
        elif name == "data sha256":
            lines.append(f"the data: {_data(before, old)}, now {_data(after, new)}")
        elif not name.startswith(("git", "data")):
            lines.append(f"{name} {old}, now {new}")
    return lines


def _data(summary: Mapping[str, Any], digest: str | None) -> str:
    """Return the release of a run's data, and the start of its digest."""
    return f"{(summary.get('data') or {}).get('release')} ({str(digest)[:8]})"


def _differing_metrics(left: Mapping[str, Any], right: Mapping[str, Any]) -> str:
    keys = [k for k in left if k.startswith(("train/", "valid/", "test/")) and left[k] != right.get(k)]
    return ", ".join(f"{key} {_shown(left[key])}, now {_shown(right.get(key))}" for key in keys[:3])


def _shown(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.6g}"
