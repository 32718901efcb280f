"""What makes a run the one it is: digests of its settings, of the code, and of all that it reads."""

from __future__ import annotations

from dlrunner.config.plan import Plan
from dlrunner.data.core.source import sha256_of
from dlrunner.runs.fingerprint import code_digest
from dlrunner.task import Data, DataIdentity


def identity_of(data: Data | None) -> DataIdentity:
    """Return which data a run works on; finding that out may download it, and parses nothing."""
    return data.identity() if data else DataIdentity("none", "none", "real", "", "")


def digests(checked: Plan, identity: DataIdentity) -> dict[str, str]:
    """Return what a run's folder and its checkpoints are recognised by."""
    return {
        "signature": checked.signature,
        "code": code_digest(checked.settings.plugins),
        "data": digest_of_inputs(checked, identity),
    }


def digest_of_inputs(checked: Plan, identity: DataIdentity) -> str:
    """Return digests of all files that a result rests on: the data's, and those whose weights the model starts from."""
    return " ".join([identity.digest or identity.sha256, *map(sha256_of, checked.model_files())])
