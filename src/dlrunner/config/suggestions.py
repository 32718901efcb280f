"""The setting that an unknown name could mean: `lr` is `optim.lr`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from dlrunner.config.schema import LogSettings, SweepSettings
from dlrunner.config.source_signatures import signature_in_source
from dlrunner.errors import did_you_mean

PROVIDED: Mapping[str, frozenset[str]] = {
    "data": frozenset({"data_dir"}),
    "task": frozenset({"data", "batch_size", "seed", "device", "phases"}),
    "model": frozenset({"dims", "data_dir"}),
    "optim": frozenset({"params"}),
    "trainer": frozenset({"phases", "device", "precision", "seed"}),
    "log.trackers": frozenset(),
    "schedule": frozenset({"epochs"}),
}
"""Arguments that a run passes to the class of each section; they are not settings."""

SYNONYMS = {
    "bs": "batch_size",
    "cuda": "device",
    "learning_rate": "optim.lr",
    "num_epochs": "epochs",
    "patience": "trainer.early_stopping",
    "wd": "optim.weight_decay",
}
"""Names of other programs."""

SIMILAR = 0.75
"""Of names without a section, from 0 to 1: `weight_deacy` is near enough to `optim.weight_decay`."""


def suggest_setting(config: Mapping[str, Any], name: str, top_level: Iterable[str]) -> str:
    """Suggest the setting that an unknown name could mean, with its section.

    >>> config = {"optim": {"_target_": "torch.optim.AdamW"}, "trainer": {"_target_": "dlrunner.training.Trainer"}}
    >>> [suggest_setting(config, name, ["epochs", "seed"]) for name in ("lr", "patience", "weight_deacy")]
    ['did you mean optim.lr?', 'did you mean trainer.early_stopping?', 'did you mean optim.weight_decay?']

    Args:
        config: the composed configuration, whose classes say which settings there are.
        name: what was typed.
        top_level: names that stand in no section.
    """
    known = _settings_of(config)
    own = list(top_level)
    if found := known.get(name) or ([SYNONYMS[name]] if name in SYNONYMS else []):
        return f"did you mean {' or '.join(found)}?"
    if not difflib.get_close_matches(name, own, n=1, cutoff=SIMILAR) and (
        near := difflib.get_close_matches(name, known, n=1, cutoff=SIMILAR)
    ):
        return f"did you mean {' or '.join(known[near[0]])}?"
    return did_you_mean(name, own)


def _settings_of(config: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the full names of the settings in sections, by their last part."""
    found: dict[str, list[str]] = {}
    for section in ("data", "task", "model", "optim", "schedule", "trainer"):
        node = config.get(section)
        if not isinstance(node, Mapping):
            continue
        signature = signature_in_source(str(node.get("_target_")))
        names = {**(signature.parameters if signature else {}), **node}
        for name in names:
            if name != "_target_" and name not in PROVIDED[section]:
                found.setdefault(str(name), []).append(f"{section}.{name}")
    for section, model in (("log", LogSettings), ("sweep", SweepSettings)):
        for name in model.model_fields:
            found.setdefault(name, []).append(f"{section}.{name}")
    return found
