"""Identity of a run: digests of its settings, of the code, and of every file it reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from dlrunner.config.plan import Plan, plan
from dlrunner.data.core.cache import sha256_of
from dlrunner.errors import DataError
from dlrunner.execution.initial_weights import initial_file
from dlrunner.runs.fingerprint import code_digest
from dlrunner.task import Data, DataIdentity


def identity_of(data: Data | None) -> DataIdentity:
    """Return which data a run uses; this may download it, but parses nothing."""
    return data.identity() if data else DataIdentity("none", "none", "real", "", "")


def refuse_changed_data(checked: Plan, data: Data | None, identity: DataIdentity) -> None:
    """Check, once the data has been read, that it is what was identified before.

    Of a query the rows are not read again: their order may be another one.

    Raises:
        DataError: it is not: what was read would be recorded as something else.
    """
    if data is None or (checked.settings.data or {}).get("query") is not None:
        return
    now = data.identity_as_read()
    if (now.sha256, now.digest) != (identity.sha256, identity.digest):
        raise DataError(f"{identity.path} changed while it was being read; try again")


def refuse_generated_data(configs: Iterable[Mapping[str, Any]]) -> None:
    """Refuse the jobs of a sweep whose data would be generated because the published data was not found.

    A run then warns; the results of a sweep are compared and published, with the warnings far away.

    Raises:
        DataError: the data is not there, and cannot be downloaded.
    """
    known: set[str] = set()
    for config in configs:
        data = config["data"] or {}
        settings = json.dumps(data, sort_keys=True, default=str)
        if data.get("source") != "auto" or data.get("path") is not None or settings in known:
            continue
        known.add(settings)
        if identity_of(plan(config).build_data()).source == "synthetic":
            raise DataError(
                "data.source: the published data was not found, and a sweep takes generated data only on request; "
                "`dlrun data` lists where to get it, data.source=synthetic generates it"
            )


def digests(checked: Plan, identity: DataIdentity) -> dict[str, str]:
    """Return the digests that identify a run's folder and its checkpoints."""
    lineage = {"lineage": checked.lineage} if checked.lineage else {}
    return {
        **lineage,
        "signature": checked.signature,
        "code": code_digest(checked.settings.plugins),
        "data": digest_of_inputs(checked, identity),
    }


def digest_of_inputs(checked: Plan, identity: DataIdentity) -> str:
    """Return digests of all files that a result depends on: the data and the model's pre-trained weights."""
    files = [*checked.model_files(), *([initial_file(checked.settings.init)] if checked.settings.init else [])]
    return " ".join([identity.digest or identity.sha256, *map(sha256_of, files)])


def synthetic_data_warning(checked: Plan) -> str:
    """Return the warning of a run on synthetic data, whether requested or in place of data that was not found."""
    if (checked.settings.data or {}).get("source") == "synthetic":
        return "warning: synthetic data, as requested by data.source=synthetic"
    return "warning: synthetic data: the published data was not found; `dlrun data` lists where to get it"
