"""The package's configuration files, and which of its models has a setting."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

from dlrunner.config.source_signatures import dims_in_source, signature_in_source


@functools.cache
def package_conf() -> Path:
    """Return the folder of the package's configuration: inside the wheel, or next to `src` in a checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged = package / "conf"
    return packaged if packaged.is_dir() else package.parents[1] / "conf"


@functools.cache
def _models() -> Mapping[str, str]:
    """Return the class of each option of `model`."""
    files = sorted((package_conf() / "model").glob("*.yaml"))
    found = {file.stem: re.search(r"^_target_: (\S+)", file.read_text(), re.MULTILINE) for file in files}
    return {name: target[1] for name, target in found.items() if target}


def setting_of_other_model(target: str, name: str) -> str | None:
    """Return a message if another model for the same data has a setting; None: there is none.

    >>> setting_of_other_model("dlrunner.models.ngram_classifier.NgramClassifier", "hidden")
    'model.hidden is a setting of model=text_classifier: add that'

    Args:
        target: the class of the model without it.
        name: of the setting.
    """
    dims = dims_in_source(target)
    others = [
        f"model={option}"
        for option, other in _models().items()
        if dims is not None and dims_in_source(other) == dims
        if (signature := signature_in_source(other)) and name in signature.parameters
    ]
    if not others:
        return None
    return f"model.{name} is a setting of {' and '.join(others)}: add {'that' if len(others) == 1 else 'one of them'}"
