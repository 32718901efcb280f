"""Published values, and whether a run or several seeds reach them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist, fmean, stdev
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from dlrunner.audit_flags import Flag
from dlrunner.errors import ConfigError
from dlrunner.ranges import NonNegative

Word = Literal["reached", "not distinguishable", "missed", "cannot be run here"]

FEW_SEEDS = 5
"""With fewer seeds their own standard deviation says little: the claim's is used where it has one."""
SIGNIFICANCE, POWER = 0.05, 0.8


class Claim(BaseModel):
    """A published value, and how to compare a run with it."""

    model_config = ConfigDict(strict=True, extra="forbid")
    metric: str
    value: float
    source: str
    release: str | None = None
    std: NonNegative | None = None
    """Standard deviation over seeds, as measured earlier: one run, or few seeds, are judged by it."""
    quick: bool = False
    """A run takes less than two minutes on two cores."""
    needs: list[Literal["gpu", "encoder"]] = []
    """Requirements of `dlrun reproduce`: a GPU, or an encoder from another run."""
    flags: list[Flag] = []
    """Audit flags of the published result; those of a run are added to them."""


def judge_run(
    claim: Claim,
    final: Mapping[str, float | None],
    higher_is_better: bool,
    release: str,
    audit: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """Compare one run with a published value, by `judge_seeds` of a single seed.

    Args:
        claim: the published value.
        final: the run's metrics.
        higher_is_better: of the claim's metric.
        release: of the run's data.
        audit: findings of the data audit of the run: flag and message of each.
    """
    if claim.metric not in final:
        raise ConfigError(f"claim.metric: this task has no {claim.metric}; it has {', '.join(final)}")
    value = math.nan if (found := final[claim.metric]) is None else found  # null in a stored summary
    undeclared = [finding["flag"] for finding in audit if finding["flag"] not in claim.flags]
    short = claim.value - value if higher_is_better else value - claim.value
    if claim.release and claim.release != release:
        verdict = f"not comparable: the published data is {claim.release}, this run used {release}"
    elif math.isnan(value):
        verdict = "missed: it is not a number"
    else:
        judgement = judge_seeds([value], claim.value, higher_is_better, claim.std)
        verdict = (
            f"missed by {short:.4g}" if judgement.word == "missed" else describe(judgement.word, 1, judgement.needed)
        )
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


def is_current(claim: Mapping[str, Any], verdict: Mapping[str, Any], release: str) -> bool:
    """Return whether the stored verdict of a run is about the present claim.

    Args:
        claim: from its experiment file.
        verdict: as `judge_run` returned it; empty: there is none.
        release: of the run's data.
    """
    declared = {*(verdict.get("flags") or ())} - {*(verdict.get("undeclared") or ())}
    is_comparable = not str(verdict.get("verdict")).startswith("not comparable")
    return (
        [verdict.get("metric"), verdict.get("published")] == [claim["metric"], claim["value"]]
        and declared == {*(claim.get("flags") or ())}
        and is_comparable == (not claim.get("release") or claim["release"] == release)
    )


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


class Judgement(NamedTuple):
    """Whether seeds reach a published value."""

    word: Word
    p: float
    """Of the one-sided test that the true mean is worse; 1 where the mean is not, NaN where nothing can be tested."""
    needed: int | None = None
    """Seeds with which the test would detect a difference of this size, where it did not."""


def judge_seeds(
    values: Sequence[float], published: float, higher_is_better: bool, std: float | None = None
) -> Judgement:
    """Compare seeds with a published value by a one-sided test at 5 %.

    From five seeds on it is the t-test, and for fewer too if no standard deviation is known; with a known one it is the
    z-test, so that a single run, three seeds and the five of a published table are judged by the same std. A
    mean that is worse by less than the test can detect is neither reached nor missed.

    Args:
        values: of the metric, by seed.
        published: the value to reach.
        higher_is_better: the metric's direction.
        std: standard deviation over seeds, as measured earlier.

    >>> judge_seeds([0.81, 0.80, 0.805], 0.81, higher_is_better=False).word
    'reached'
    >>> judge_seeds([0.82, 0.80, 0.815], 0.81, higher_is_better=False)
    Judgement(word='not distinguishable', p=0.40377..., needed=242)
    >>> judge_seeds([0.83, 0.831, 0.832], 0.81, higher_is_better=False).word
    'missed'
    >>> judge_seeds([0.812], 0.81, higher_is_better=False, std=0.002)
    Judgement(word='not distinguishable', p=0.15865..., needed=7)
    """
    n, mean = len(values), fmean(values)
    short = published - mean if higher_is_better else mean - published
    if short <= 0:
        return Judgement("reached", 1.0)
    if math.isnan(short):
        return Judgement("missed", math.nan)
    if std and n < FEW_SEEDS:
        p = 1 - NormalDist().cdf(short * math.sqrt(n) / std)
    elif n < 2:
        return Judgement("missed", math.nan)
    else:
        from scipy.special import stdtr  # scipy.stats would take a second to import, and warns of equal values

        std = stdev(values)
        p = float(stdtr(n - 1, -short * math.sqrt(n) / std)) if std else 0.0
    if p < SIGNIFICANCE:
        return Judgement("missed", p)
    quantiles = NormalDist().inv_cdf(1 - SIGNIFICANCE) + NormalDist().inv_cdf(POWER)
    return Judgement("not distinguishable", p, max(n + 1, math.ceil((quantiles * std / short) ** 2)))


def describe(word: str, n: int, needed: int | None) -> str:
    """Return a verdict, with the number of seeds that would decide it.

    >>> describe("not distinguishable", 2, 5)
    'not distinguishable, n = 2: 5 would be needed'
    >>> describe("reached", 2, None)
    'reached'
    """
    return f"{word}, n = {n}: {needed:,} would be needed" if needed else word
