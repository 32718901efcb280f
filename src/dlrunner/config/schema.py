"""What a configuration may hold at its top level, its types and ranges, and how a mistake is told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from dlrunner.claims.claims import Claim
from dlrunner.errors import did_you_mean
from dlrunner.ranges import Count, NonNegative, Positive, Probability, Seed, Text
from dlrunner.renamed import renamed

STRICT = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True)

LearningRate = Positive | Annotated[list[Positive], Field(min_length=1)]

OPTIMIZER_SETTINGS: dict[str, Any] = {
    "lr": LearningRate,
    "momentum": Probability,
    "dampening": Probability,
    "nesterov": bool,
    "weight_decay": NonNegative | Annotated[list[NonNegative], Field(min_length=1)],
    "betas": Annotated[list[Probability], Field(min_length=2, max_length=2)],
    "eps": Positive,
    "alpha": Probability,
    "lr_decay": NonNegative,
    "initial_accumulator_value": NonNegative,
    "centered": bool,
    "amsgrad": bool,
    "maximize": bool,
    "foreach": bool | None,
    "fused": bool | None,
    "capturable": bool,
    "differentiable": bool,
}
"""Types and ranges of what torch.optim's constructors take; torch checks them only when it is built."""


def _plain_name(name: str) -> str:
    if not name.isprintable() or name.startswith(".") or len(name) > 100 or set(name) & set("/\\"):
        raise PydanticCustomError("name", "a name without a slash, no dot at its start and at most 100 letters")
    return name


Name = Annotated[str, Field(min_length=1), AfterValidator(_plain_name)]
"""Of an option or a tracker: files and folders are named by it."""


class PhaseSettings(BaseModel):
    """One entry of `phases`: a stretch of training."""

    model_config = STRICT
    epochs: Count
    lr: LearningRate | None = None
    schedule: str | dict[str, Any] | None = None
    freeze_to: int | None = None
    task: dict[str, Any] = Field(default_factory=dict)


class LogSettings(BaseModel):
    """How a run shows itself; nothing here can change a result."""

    model_config = STRICT
    progress: Literal["auto", "bars", "plain", "none"] = "auto"
    plots: bool = True
    report: bool = True
    trackers: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    tracker_timeout: NonNegative = 10.0


class NeedsSettings(BaseModel):
    """What a job asks of a cluster; what is null is the cluster's choice."""

    model_config = STRICT
    cpus: Count | None = None
    gpus: NonNegative | None = None
    memory_gb: Positive | None = None
    minutes: Count | None = None
    partition: Text | None = None
    more: dict[str, Any] = Field(default_factory=dict)


class SweepSettings(BaseModel):
    """How the jobs of a sweep are run; nothing here can change the result of one."""

    model_config = STRICT
    jobs: Count | Literal["auto"] | None = None
    gpu_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    fail_fast: bool = False
    dry_run: bool = False
    needs: NeedsSettings = Field(default_factory=NeedsSettings)
    trials: Count = 20
    sampler: Literal["tpe", "random"] = "tpe"
    sampler_seed: Seed = 0
    best: Text | None = None


class Settings(BaseModel):
    """The top level of a configuration."""

    model_config = STRICT
    seed: Seed
    epochs: Count | None
    batch_size: Count
    device: str
    precision: Literal["fp32", "bf16", "fp16"]
    ensemble: Count
    data_dir: Text
    runs_dir: Text
    rerun: bool
    plugins: list[str]
    freeze_to: int
    phases: Annotated[list[PhaseSettings], Field(min_length=1)] | None
    claim: Claim | None
    data: dict[str, Any] | None
    task: dict[str, Any]
    model: dict[str, Any]
    optim: dict[str, Any]
    schedule: dict[str, Any]
    trainer: dict[str, Any]
    log: LogSettings
    sweep: SweepSettings = Field(default_factory=SweepSettings)
    seeds: Count | None = None
    choices: dict[str, Name | None]


def sentences(place: str, error: ValidationError, value: Any, model: type[BaseModel] | None) -> list[str]:
    """Turn pydantic's findings into lines a person can act on, one per place."""
    lines: dict[str, list[str]] = {}
    shown: dict[str, Any] = {}
    findings = error.errors()
    # Of a union's findings (a number, or a list of numbers) the one that got furthest is the one that was meant.
    meant = any(not found["type"].endswith(("_type", "_error")) for found in findings)
    for found in findings:
        if found["type"].endswith("_type") and meant:
            continue
        where, at = place, value
        fields: Iterable[str] = model.model_fields if model else ()
        for part in found["loc"]:
            inside = (isinstance(at, Mapping) and part in at) or (isinstance(at, list) and isinstance(part, int))
            if not inside and found["type"] not in ("extra_forbidden", "missing"):
                continue  # pydantic's name for a branch of a union
            where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
            at = at[part] if inside else None
        if found["type"] == "extra_forbidden":
            unknown = f"is unknown; {did_you_mean(str(found['loc'][-1]), fields)}"
            lines.setdefault(where, []).append(unknown)
        elif found["type"] == "missing":
            lines.setdefault(where, []).append("is missing")
        else:
            shown[where] = at
            message = found["msg"].replace("Input should be ", "").replace("a valid ", "a ")
            if found["type"] in ("too_short", "too_long"):
                wanted = found["ctx"].get("min_length", found["ctx"].get("max_length"))
                message = f"a list with {'at least' if found['type'] == 'too_short' else 'at most'} {wanted} entries"
            elif found["type"] == "string_too_short":
                message = "something"
            lines.setdefault(where, []).append(
                message.replace("dictionary", "section").replace("a integer", "an integer")
            )
    return [
        f"{where}: must be {' or '.join(dict.fromkeys(messages))}, not {shown[where]!r}"
        if where in shown
        else renamed(where) or f"{where}: {messages[0]}"
        for where, messages in lines.items()
    ]
