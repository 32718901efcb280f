"""The top level of a configuration: its settings, their types and ranges, and error messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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
    "lr": LearningRate | Literal["auto"],
    "momentum": Probability,
    "dampening": Probability,
    "nesterov": bool,
    "weight_decay": NonNegative | Annotated[list[NonNegative], Field(min_length=1)] | Literal["auto"],
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
"""Types and ranges of the arguments of torch.optim's constructors; torch itself checks them only when called."""


def _plain_name(name: str) -> str:
    if not name.isprintable() or name.startswith(".") or len(name) > 100 or set(name) & set("/\\"):
        raise PydanticCustomError("name", "a name without slashes, without a leading dot, of at most 100 characters")
    return name


Name = Annotated[str, Field(min_length=1), AfterValidator(_plain_name)]
"""The name of an option or a tracker; it is used in file names."""


class PhaseSettings(BaseModel):
    """One entry of `phases`."""

    model_config = STRICT
    epochs: Count
    lr: LearningRate | None = None
    schedule: str | dict[str, Any] | None = None
    freeze_to: int | None = None
    task: dict[str, Any] = Field(default_factory=dict)
    new_optimizer: bool = False


class LogSettings(BaseModel):
    """Logging and reporting of a run; nothing here can change a result."""

    model_config = STRICT
    level: Literal["warning", "info", "debug"] = "info"
    progress: Literal["auto", "bars", "plain", "none"] = "auto"
    plots: bool = True
    plot_format: Literal["png", "svg", "pdf"] = "svg"
    report: bool = True
    trackers: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    tracker_timeout: NonNegative = 10.0

    @property
    def shown_progress(self) -> Literal["auto", "bars", "plain", "none"]:
        """How progress is shown at this level."""
        return "none" if self.level == "warning" else self.progress


class NeedsSettings(BaseModel):
    """Resources of a job on a cluster; null leaves the choice to the cluster."""

    model_config = STRICT
    cpus: Count | None = None
    gpus: NonNegative | None = None
    memory_gb: Positive | None = None
    minutes: Count | None = None
    partition: Text | None = None
    more: dict[str, Any] = Field(default_factory=dict)


class SweepSettings(BaseModel):
    """How the jobs of a sweep are run; nothing here can change a result."""

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
    epochs: Count | Literal["auto"] | None
    batch_size: Count | Literal["auto"]
    device: str
    precision: Literal["fp32", "bf16", "fp16", "auto"]
    ensemble: Count
    init: Text | None = None
    data_dir: Text
    runs_dir: Text
    rerun: bool
    plugins: list[str]
    freeze_to: int | Literal["auto"]
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
    name: Name | None = None
    tags: Name | list[Name] = Field(default_factory=list)
    note: Text | None = None
    choices: dict[str, Name | None]


def validation_messages(
    setting: str,
    error: ValidationError,
    value: Any,
    model: type[BaseModel] | None,
    suggest: Callable[[str, Iterable[str]], str] = did_you_mean,
    *,
    is_yaml: bool = True,
) -> list[str]:
    """Turn pydantic's errors into readable lines, one per setting.

    Args:
        setting: path of the value in the configuration.
        error: of the validation.
        value: what was validated.
        model: of the value, if it is a section.
        suggest: finds a known name for an unknown one.
        is_yaml: the value was typed, where quotation marks make a text of a number.
    """
    lines: dict[str, list[str]] = {}
    invalid: dict[str, Any] = {}
    details = error.errors()
    # For a union (a number, or a list of numbers) report only the branch whose type matched.
    has_match = any(not detail["type"].endswith(("_type", "_error")) for detail in details)
    for detail in details:
        if has_match and (detail["type"].endswith("_type") or detail["type"] == "literal_error"):
            continue
        name, node = setting, value
        fields: Iterable[str] = model.model_fields if model else ()
        for part in detail["loc"]:
            inside = (isinstance(node, Mapping) and part in node) or (isinstance(node, list) and isinstance(part, int))
            if not inside and detail["type"] not in ("extra_forbidden", "missing"):
                continue  # pydantic's name for a branch of a union
            name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else str(part)
            node = node[part] if inside else None
        if detail["type"] == "extra_forbidden":
            unknown = f"is unknown; {suggest(str(detail['loc'][-1]), fields)}"
            lines.setdefault(name, []).append(unknown)
        elif detail["type"] == "missing":
            lines.setdefault(name, []).append("is missing")
        else:
            invalid[name] = node
            message = detail["msg"].replace("Input should be ", "").replace("a valid ", "a ")
            if is_yaml and detail["type"] == "string_type" and isinstance(node, bool | int | float):
                message += " (in quotation marks it is one)"
            if detail["type"] in ("too_short", "too_long"):
                limit = detail["ctx"].get("min_length", detail["ctx"].get("max_length"))
                message = f"a list with {'at least' if detail['type'] == 'too_short' else 'at most'} {limit} entries"
            elif detail["type"] == "string_too_short":
                message = "a non-empty text"
            elif detail["type"] == "model_type":
                message = "a section"
            lines.setdefault(name, []).append(
                message.replace("dictionary", "section").replace("a integer", "an integer")
            )
    return [
        f"{name}: must be {' or '.join(dict.fromkeys(messages))}, not {invalid[name]!r}"
        if name in invalid
        else renamed(name) or f"{name}: {messages[0]}"
        for name, messages in lines.items()
    ]
