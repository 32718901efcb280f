"""Identity of a run: digests of its settings, of the code, and of every file it reads."""

from __future__ import annotations

from dlrunner.config.plan import Plan
from dlrunner.data.core.cache import sha256_of
from dlrunner.execution.initial_weights import initial_file
from dlrunner.runs.fingerprint import code_digest
from dlrunner.task import Data, DataIdentity


def identity_of(data: Data | None) -> DataIdentity:
    """Return which data a run uses; this may download it, but parses nothing."""
    return data.identity() if data else DataIdentity("none", "none", "real", "", "")


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
