"""Published values, and whether a run or several seeds reach them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from dlrunner.audit_flags import Flag
from dlrunner.errors import ConfigError
from dlrunner.ranges import NonNegative

Word = Literal["reached", "reached within noise", "missed", "cannot be run here"]


class Claim(BaseModel):
    """A published value, and how to compare a run with it."""

    model_config = ConfigDict(strict=True, extra="forbid")
    metric: str
    value: float
    source: str
    release: str | None = None
    std: NonNegative | None = None
    """Measured standard deviation over seeds; a single run within 1.645 of it reaches the value within noise."""
    quick: bool = False
    """A run takes less than two minutes on two cores."""
    needs: list[Literal["gpu", "encoder"]] = []
    """Requirements of `dlrun reproduce`: a GPU, or an encoder from another run."""
    flags: list[Flag] = []
    """Audit flags of the published result; those of a run are added to them."""


def judge_run(
    claim: Claim,
    final: Mapping[str, float],
    higher_is_better: bool,
    release: str,
    audit: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """Compare one run with a published value.

    With a measured standard deviation over seeds, a run that misses the value by less than 1.645 standard deviations is
    "reached within noise": p > 5 % if the true mean is the published value.

    Args:
        claim: the published value.
        final: the run's metrics.
        higher_is_better: of the claim's metric.
        release: of the run's data.
        audit: findings of the data audit of the run: flag and message of each.
    """
    if claim.metric not in final:
        raise ConfigError(f"claim.metric: this task has no {claim.metric}; it has {', '.join(final)}")
    value = final[claim.metric]
    undeclared = [finding["flag"] for finding in audit if finding["flag"] not in claim.flags]
    short = claim.value - value if higher_is_better else value - claim.value
    if claim.release and claim.release != release:
        verdict = f"not comparable: the published data is {claim.release}, this run used {release}"
    elif short <= 0:
        verdict = "reached"
    elif claim.std and short <= 1.645 * claim.std:
        verdict = "reached within noise"
    else:
        verdict = f"missed by {short:.4g}"
    return {
        "metric": claim.metric,
        "published": claim.value,
        "value": value,
        "verdict": verdict,
        "source": claim.source,
        "flags": [*claim.flags, *undeclared],
        "undeclared": undeclared,
        "higher_is_better": higher_is_better,
    }


def describe_finding(finding: Mapping[str, Any]) -> str:
    """Return the message of an audit finding with its advice; older runs have none.

    >>> describe_finding({"flag": "f", "message": "3 rows are duplicates", "advice": "remove them"})
    '3 rows are duplicates; remove them'
    """
    return "; ".join(str(finding[key]) for key in ("message", "advice") if finding.get(key))


def describe_flags(verdict: Mapping[str, Any]) -> str:
    """List the audit flags, and mark those that the claim does not declare.

    >>> describe_flags({"flags": ["validates-on-test", "best-epoch-on-test"], "undeclared": ["best-epoch-on-test"]})
    'validates-on-test, best-epoch-on-test (not declared by the claim)'
    """
    undeclared = verdict.get("undeclared") or ()
    flags = [
        f"{flag} (not declared by the claim)" if flag in undeclared else flag for flag in verdict.get("flags") or ()
    ]
    return ", ".join(flags)


def judge_seeds(values: Sequence[float], published: float, higher_is_better: bool) -> tuple[Word, float]:
    """Compare seeds with a published value by a one-sided t-test at 5 %.

    >>> judge_seeds([0.81, 0.80, 0.805], 0.81, higher_is_better=False)[0]
    'reached'
    >>> judge_seeds([0.82, 0.80, 0.815], 0.81, higher_is_better=False)[0]
    'reached within noise'
    >>> judge_seeds([0.83, 0.831, 0.832], 0.81, higher_is_better=False)[0]
    'missed'
    """
    mean = sum(values) / len(values)
    if (mean >= published) if higher_is_better else (mean <= published):
        return "reached", 1.0
    if len(values) < 2:
        return "missed", math.nan
    from scipy import stats  # takes a second to import

    # The alternative: the true mean is worse than the published value.
    test = stats.ttest_1samp(values, published, alternative="less" if higher_is_better else "greater")
    p = float(test.pvalue)
    return ("reached within noise" if p >= 0.05 else "missed"), p
