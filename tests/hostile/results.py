"""What commands have made, without times: to compare with what an unbroken command made."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from dlrunner.comparison.diff import NOT_COMPARED
from tests.hostile.harness import TEMPORARY

RESULTS = (
    *("status", "metric", "final", "best", "members", "tta", "weights", "auto", "baselines", "claim", "audit", "data"),
    *("seed", "error", "signature"),
)
"""Entries of a summary that may not depend on how often a run was broken."""


def results(runs: Path) -> dict[str, Any]:
    """Return the epochs, weights, predictions, tables of sweeps and status of all runs in a folder.

    Of the latest run also its export and whether its page is whole.
    """
    found: dict[str, Any] = {}
    for file in sorted(runs.rglob("*")):
        if not file.is_file() or file.relative_to(runs).parts[0] == "latest" or file.parent.name == "export":
            continue
        name = str(file.relative_to(runs))
        if file.name == "metrics.jsonl":
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            found[name] = [{key: value for key, value in row.items() if key not in NOT_COMPARED} for row in rows]
        elif file.name in ("last.pt", "best.pt") or file.name.startswith("cycle-"):
            found[name] = weights(file)
        elif file.name == "results.csv":
            table = pd.read_csv(file).drop(columns=["seconds"])
            table["folder"] = [str(folder).rpartition("runs/")[2] for folder in table["folder"]]
            found[name] = table.to_csv(index=False)
        elif file.suffix == ".csv":
            found[name] = file.read_text()
        elif file.name == "summary.json":
            summary = json.loads(file.read_text())
            found[name] = {key: _untimed(summary.get(key)) for key in RESULTS}
    for name in ("export", "report.html"):
        if (runs / "latest" / name).exists():
            found[name] = content(runs / "latest" / name)
    return found


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Name what is not as it was expected, with what was found."""
    keys = sorted(expected.keys() | found.keys())
    texts = []
    for key in keys:
        before, after = expected.get(key), found.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            before, after = (
                dict(set(each.items()) - set(other.items())) for each, other in ((before, after), (after, before))
            )
        if before != after:
            texts.append(f"{key} differs: {after!s:.200} instead of {before!s:.200}")
    return texts


def content(path: Path) -> dict[str, Any]:
    """Return the files of an export, or whether a page is whole."""
    if path.suffix == ".html":
        return {path.name: path.read_bytes().rstrip().endswith(b"</html>")} if path.exists() else {}
    files = (file for file in sorted(path.rglob("*")) if file.is_file() and not TEMPORARY.fullmatch(file.name))
    return {str(file.relative_to(path)): hashlib.sha256(_ordered(file)).hexdigest() for file in files}


def _ordered(file: Path) -> bytes:
    """Return what a file holds; safetensors writes its metadata in an order that differs between processes."""
    held = file.read_bytes()
    if file.suffix != ".safetensors":
        return held
    end = 8 + int.from_bytes(held[:8], "little")
    try:
        return json.dumps(json.loads(held[8:end]), sort_keys=True).encode() + held[end:]
    except ValueError:  # it is not whole
        return held


def weights(path: Path) -> str:
    """Return a digest of a checkpoint's model: names, shapes, types and bytes."""
    state = torch.load(path, map_location="cpu", weights_only=True)["model"]
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _untimed(entry: Any) -> str:
    """Return an entry of a summary without times."""
    if isinstance(entry, dict):
        entry = {
            name: {key: value for key, value in each.items() if key not in NOT_COMPARED}
            if isinstance(each, dict)
            else each
            for name, each in entry.items()
            if name not in NOT_COMPARED
        }
    return json.dumps(entry, sort_keys=True)
