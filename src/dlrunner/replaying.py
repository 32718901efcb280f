"""The same run again, from its folder alone: identical, the same within rounding, or different, and why."""

from __future__ import annotations

import contextlib
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dlrunner import runner
from dlrunner.comparing.differing import ROUNDING, differing_grounds, row_difference
from dlrunner.errors import RequestError
from dlrunner.lr_find import weights_digest
from dlrunner.runs import FinishedRun, load_weights_file, members_of, read_history, shorter, told_as_sentences


def replay(original: FinishedRun, data_dir: str | None = None) -> int:
    """Run again beside the original, compare, say what changed, and return 0 unless the results differ.

    Raises:
        RequestError: the original is not done: there is nothing to compare with.
    """
    if original.status != "done" or original.summary is None:
        raise RequestError(f"{shorter(original.path)} is {original.status}; a replay needs a finished run")
    place = _place_beside(original.path)
    try:
        config = {**original.config, "runs_dir": str(place), "rerun": False, "claim": None}
        config["log"] = {**(config.get("log") or {}), "pictures": False, "report": False, "trackers": {}}
        if data_dir:
            config["data_dir"] = data_dir
        outcome = runner.run(config, original.overrides)
        again = FinishedRun.read(outcome.path)
        for line in changes(original.summary, again.summary or {}):
            print(f"changed: {line}")
        verdict, reason = compare(original.path, again.path)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print(f"replay: {verdict}{f' ({reason})' if reason else ''}")
    return 1 if verdict == "different" else 0


def _place_beside(original: Path) -> Path:
    """Make a folder for the second run: beside the first, or where that cannot be written, where the system has one.

    Raises:
        RunError: there is no place for it.
    """
    with contextlib.suppress(OSError, UnicodeEncodeError):
        str(original).encode()  # no setting can be a path that is not UTF-8
        return Path(tempfile.mkdtemp(prefix=".replay-", dir=original.parent))
    with told_as_sentences(Path(tempfile.gettempdir())):
        return Path(tempfile.mkdtemp(prefix="dlrunner-replay-"))


def compare(original: Path, again: Path) -> tuple[str, str]:
    """Compare two run folders: "identical", "same within rounding" or "different", and where they part."""
    folders = [Path(), *(member.relative_to(original) for member in members_of(original))]
    verdict, reason = "identical", ""
    for folder in folders:
        before, after = read_history(original / folder), read_history(again / folder)
        if len(before) != len(after):
            return "different", f"{len(before)} epochs, now {len(after)}"
        for left, right in zip(before, after, strict=True):
            difference = row_difference(left, right)
            if difference > ROUNDING:
                return "different", f"first at epoch {left['epoch']}: {_told(left, right)}"
            if difference > 0 and verdict == "identical":
                verdict, reason = "same within rounding", f"largest relative difference {difference:.1e}"
        if verdict == "identical" and (original / folder / "last.pt").exists():
            weights = [load_weights_file(run / folder / "last.pt").get("model", {}) for run in (original, again)]
            if weights_digest(weights[0]) != weights_digest(weights[1]):
                return "different", "the metrics agree to the last digit, the weights do not"
    return verdict, reason


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Sequence[str]:
    """Say what the two summaries record differently of all that can move a result."""
    lines = []
    for name, old, new in differing_grounds(before, after):
        if name == "code":
            lines.append("the code of dlrunner (or of a plugin)")
        elif name == "data sha256":
            lines.append(
                f"the data: {before.get('data', {}).get('release')}, now {after.get('data', {}).get('release')}"
            )
        elif not name.startswith(("git", "data")):
            lines.append(f"{name} {old}, now {new}")
    return lines


def _told(left: Mapping[str, Any], right: Mapping[str, Any]) -> str:
    keys = [k for k in left if k.startswith(("train/", "valid/")) and left[k] != right.get(k)]
    return ", ".join(f"{key} {left[key]:.6g}, now {right.get(key, math.nan):.6g}" for key in keys[:3])
