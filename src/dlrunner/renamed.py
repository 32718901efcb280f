"""Names of earlier versions: refused in a command with the new name, translated in an old run folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

SETTINGS = {
    "log.pictures": "log.plots",
    "log.patience": "log.tracker_timeout",
    "model.ps": "model.dropout",
    "model.wiring": "model.variant",
    "claim.spread": "claim.std",
}
"""By their path in a configuration."""

OPTIONS = {"model=picture_net": "model=image_classifier"}
"""Of groups."""

VALUES = {"stand-in": "synthetic"}
"""Of `data.source`."""

MODULES = {
    "data.dogbreeds": "data.dogbreeds.dataset",
    "data.imdb": "data.imdb.dataset",
    "data.pictures": "data.images.dataset",
    "data.ratings": "data.ratings.dataset",
    "data.rossmann": "data.rossmann.dataset",
    "data.tabular": "data.tabular.dataset",
    "data.texts": "data.texts.dataset",
    "tasks.collab": "tasks.collab.task",
    "tasks.image": "tasks.image.task",
    "tasks.language": "tasks.language.task",
    "tasks.rossmann": "tasks.tabular.rossmann",
    "tasks.tabular": "tasks.tabular.task",
    "tasks.text": "tasks.text.task",
}
"""Of classes that a `_target_` may name."""

CLASSES = {
    "PictureClassification": "ImageClassification",
    "PictureData": "ImageData",
    "PictureNet": "ImageClassifier",
}

ADDED: dict[str, dict[str, Any]] = {
    "DotBias": {"start_at_mean": False},
    "EmbeddingNet": {"bins": 0, "num_nets": 1},
    "LanguageModel": {"softmax": "full", "pointer": 0},
    "RatingsData": {
        "skip_bad": False,
        "items": None,
        "users": None,
        "implicit": False,
        "min_rating": None,
        "valid_column": None,
        "folds": 5,
        "fold": 0,
    },
    "TabularData": {"skip_bad": False, "horizon": None, "lags": None, "rolling_means": None, "group": None},
}
"""Settings of classes that earlier versions did not have, with the value that does what they did."""

SUMMARY = {"protocol": "audit", "looks": "tta", "members.spread": "members.std", "data.floor": "data.best_achievable"}
"""Parts of summary.json."""

FLAGS = {"pictures-overlap-imagenet": "images-overlap-imagenet"}
"""Audit flags of claims."""


def renamed(path: str, known: Iterable[str] | None = None) -> str | None:
    """Return a message with the present name of a setting or option, such as `model=picture_net`; None if not renamed.

    Args:
        path: of the setting in the configuration.
        known: present settings, if they depend on the class.
    """
    new = SETTINGS.get(path) or OPTIONS.get(path)
    return f"{path} is now {new}" if new and (known is None or _last(new) in known) else None


def new_target(target: str) -> str:
    """Return the present name of a class.

    >>> new_target("dlrunner.data.pictures.PictureData")
    'dlrunner.data.images.dataset.ImageData'
    >>> new_target("mine.PictureData")
    'mine.PictureData'
    """
    module, _, name = target.rpartition(".")
    package, _, inside = module.partition(".")
    if package != "dlrunner":
        return target
    return f"dlrunner.{MODULES.get(inside, inside)}.{CLASSES.get(name, name)}"


def present_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration of an old run with present names; a present one is not changed."""
    found: dict[str, Any] = {**config}
    for section, settings in config.items():
        if isinstance(settings, Mapping):
            renamed = {_last(SETTINGS.get(f"{section}.{key}", str(key))): value for key, value in settings.items()}
            if isinstance(renamed.get("_target_"), str):
                renamed["_target_"] = new_target(renamed["_target_"])
                renamed = {**ADDED.get(_last(renamed["_target_"]), {}), **renamed}
            found[section] = renamed
    if isinstance(found.get("data"), Mapping) and isinstance(found["data"].get("source"), str):
        source = found["data"]["source"]
        found["data"]["source"] = VALUES.get(source, source)
    if isinstance(found.get("claim"), dict):
        found["claim"] = _present_claim(found["claim"])
    if isinstance(found.get("choices"), Mapping):
        for group, option in found["choices"].items():
            new = OPTIONS.get(f"{group}={option}")
            found["choices"][group] = new.partition("=")[2] if new else option
    return found


def present_summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the summary of an old run with present names; a present one is not changed."""
    found = {
        SUMMARY.get(key, key): dict(value) if isinstance(value, Mapping) else value for key, value in summary.items()
    }
    for old, new in SUMMARY.items():
        part, _, name = old.partition(".")
        if name and isinstance(found.get(part), dict) and name in found[part]:
            found[part][_last(new)] = found[part].pop(name)
    data = found.get("data")
    if isinstance(data, dict) and isinstance(data.get("source"), str):
        data["source"] = VALUES.get(data["source"], data["source"])
    if isinstance(found.get("claim"), dict):
        found["claim"] = _present_claim(found["claim"])
    tta = found.get("tta")
    if isinstance(tta, dict) and "one_look" in tta:
        found["tta"] = {"num_views": tta.get("number"), "single_view": tta["one_look"]}
    if isinstance(found.get("audit"), list):
        found["audit"] = [
            {("message" if key == "told" else key): value for key, value in each.items()}
            if isinstance(each, Mapping)
            else each
            for each in found["audit"]
        ]
    return found


def present_verdict(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """Return an old verdict on a claim with present names."""
    return _present_claim({("std" if key == "spread" else key): value for key, value in verdict.items()})


def _present_claim(claim: Mapping[str, Any]) -> dict[str, Any]:
    """Return a claim or verdict with the present names of its audit flags, and the present word."""

    def present(key: str, value: Any) -> Any:
        if key in ("flags", "undeclared") and isinstance(value, list):
            return [FLAGS.get(flag, flag) if isinstance(flag, str) else flag for flag in value]
        return "not distinguishable" if (key, value) == ("verdict", "reached within noise") else value

    return {key: present(key, value) for key, value in claim.items()}


def present_report(kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of an old report.json with present names."""
    names = {"pictures": "plots", "passages": "annotated_texts"}
    return {names.get(key, key): value for key, value in kept.items()}


def _last(name: str) -> str:
    return name.rpartition(".")[2]
