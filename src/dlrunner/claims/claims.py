"""Published figures, and whether a run or several seeds reach them."""

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
    """A published figure, and what is needed to judge a run by it."""

    model_config = ConfigDict(strict=True, extra="forbid")
    metric: str
    value: float
    source: str
    release: str | None = None
    std: NonNegative | None = None
    """Standard deviation over seeds, as measured; what a single run may miss the figure by is 1.645 of it."""
    quick: bool = False
    """It takes less than two minutes on two cores."""
    needs: list[Literal["gpu", "encoder"]] = []
    """What `dlrun reproduce` does not run it without: a CPU would take days; the encoder is a run of one's own."""
    flags: list[Flag] = []
    """What made the figure flattering; what is found in a run is added to it."""


def judge_run(
    claim: Claim,
    final: Mapping[str, float],
    higher_is_better: bool,
    release: str,
    protocol: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """Compare one run with a published figure.

    With the measured spread over seeds, a run that misses the figure by less than 1.645 standard deviations is
    "reached within noise": it would happen to one run in twenty or more whose mean is the figure.

    Args:
        claim: the published figure.
        final: the run's metrics.
        higher_is_better: of the claim's metric.
        release: of the run's data.
        protocol: what was found in the run that makes its number flattering: flag and sentence of each finding.
    """
    if claim.metric not in final:
        raise ConfigError(f"claim.metric: this task has no {claim.metric}; it has {', '.join(final)}")
    value = final[claim.metric]
    undeclared = [finding["flag"] for finding in protocol if finding["flag"] not in claim.flags]
    short = claim.value - value if higher_is_better else value - claim.value
    if claim.release and claim.release != release:
        verdict = f"not comparable: the figure rests on {claim.release}, this run on {release}"
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


def describe_flags(judged: Mapping[str, Any]) -> str:
    """Name what makes the numbers flattering, and what of it the claim does not say.

    >>> describe_flags({"flags": ["validates-on-test", "best-epoch-on-test"], "undeclared": ["best-epoch-on-test"]})
    'validates-on-test, best-epoch-on-test (not declared by the claim)'
    """
    undeclared = judged.get("undeclared") or ()
    flags = [
        f"{flag} (not declared by the claim)" if flag in undeclared else flag for flag in judged.get("flags") or ()
    ]
    return ", ".join(flags)


def judge_seeds(values: Sequence[float], published: float, higher_is_better: bool) -> tuple[Word, float]:
    """Judge seeds against a published figure by a one-sided t-test at 5 %.

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
    from scipy import stats  # takes a second to import: only when seeds are judged

    # The alternative is that the true mean is worse than the figure.
    test = stats.ttest_1samp(values, published, alternative="less" if higher_is_better else "greater")
    p = float(test.pvalue)
    return ("reached within noise" if p >= 0.05 else "missed"), p
