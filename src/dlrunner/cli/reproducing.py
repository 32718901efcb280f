"""Claims: published figures, earned again by several seeds and judged by a test."""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dlrunner import runner
from dlrunner.claims import Word, judge_seeds
from dlrunner.cli.composing import compose
from dlrunner.cli.places import options_of
from dlrunner.dispatch import plan
from dlrunner.errors import DataError, RequestError, RunError, did_you_mean
from dlrunner.looks import tables
from dlrunner.runs import told_as_sentences, write_atomically


@dataclass(frozen=True)
class Verdict:
    """What several seeds say about one claim."""

    experiment: str
    metric: str
    published: float
    verdict: Word
    mean: float = math.nan
    spread: float = math.nan
    """Standard deviation over seeds."""
    n: int = 0
    p: float = math.nan
    """Of a mean this bad or worse, were the true mean the published figure (one-sided t-test)."""
    seconds: float = math.nan
    """Mean of a run."""
    source: str = ""
    why: str = ""
    flags: tuple[str, ...] = ()


def reproduce(words: list[str]) -> int:
    """Run what is missing of some claims, judge them, write the table; 1 when one is missed."""
    parser = argparse.ArgumentParser(prog="dlrun reproduce", description="Earn published figures again.")
    parser.add_argument(
        "patterns", nargs="*", default=["*"], metavar="PATTERN", help="experiments, such as 'movielens-*'"
    )
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="runs of each (default: 5)")
    parser.add_argument("--quick", action="store_true", help="only claims that need less than two minutes a seed")
    parser.add_argument("--out", metavar="FILE", help="write the verdicts as JSON")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings for all runs")
    arguments = parser.parse_args(words)
    if arguments.seeds < 1:
        raise RequestError(f"--seeds: must be 1 or more, not {arguments.seeds}")
    if any(word.lstrip("+~").startswith("claim") for word in arguments.set):
        raise RequestError("--set: the claims are what is judged; they cannot be set")
    known = [name for name in options_of("experiment") if compose([f"experiment={name}"]).get("claim")]
    chosen = [name for name in known if any(fnmatch.fnmatch(name, pattern) for pattern in arguments.patterns)]
    if not chosen:
        raise RequestError(f"no experiment with a claim matches; {did_you_mean(arguments.patterns[0], known)}")
    verdicts = []
    for name in chosen:
        claim = compose([f"experiment={name}"])["claim"]
        if arguments.quick and not claim.get("quick"):
            continue
        verdicts.append(_earn(name, claim, arguments.seeds, arguments.set))
        print(f"== {name}: {verdicts[-1].verdict} {verdicts[-1].why}".rstrip(), flush=True)
    _print(verdicts)
    if arguments.out:
        out = Path(arguments.out)
        with told_as_sentences(out):
            write_atomically(out, json.dumps([asdict(v) for v in verdicts], indent=2).encode())
    return 1 if any(v.verdict == "missed" for v in verdicts) else 0


def _earn(name: str, claim: dict[str, Any], num_seeds: int, settings: Sequence[str]) -> Verdict:
    """Run the seeds of one claim that are not there yet, and judge."""
    published = {"metric": claim["metric"], "published": claim["value"], "source": claim["source"]}
    values, seconds, higher = [], [], False
    if lacking := _lacking(name, claim, settings):
        return Verdict(name, **published, verdict="cannot be run here", why=lacking)
    for seed in range(num_seeds):
        print(f"\n== {name}, seed {seed}", flush=True)
        words = [f"experiment={name}", f"seed={seed}", "log.progress=plain", "log.pictures=false", *settings]
        try:
            outcome = runner.run(compose(words), words)
        except (DataError, RunError) as error:
            return Verdict(name, **published, verdict="cannot be run here", why=str(error))
        if outcome.summary["claim"]["verdict"].startswith("not comparable"):
            return Verdict(name, **published, verdict="cannot be run here", why=outcome.summary["claim"]["verdict"])
        values.append(float(outcome.summary["final"][claim["metric"]]))
        seconds.append(float(outcome.summary["seconds"]))
        higher = bool(outcome.summary["claim"]["higher_is_better"])
    verdict, p = judge_seeds(values, claim["value"], higher)
    column = pd.Series(values)
    return Verdict(
        name,
        **published,
        verdict=verdict,
        mean=float(column.mean()),
        spread=float(column.std()),
        n=len(values),
        p=p,
        seconds=sum(seconds) / len(seconds),
        flags=tuple(claim.get("flags") or ()),
    )


def _lacking(name: str, claim: dict[str, Any], settings: Sequence[str]) -> str:
    """Say what a claim needs that is not here; empty when all is."""
    config = compose([f"experiment={name}", *settings])
    needs = claim.get("needs") or []
    if "encoder" in needs and not config["model"]["encoder"]:
        return "it needs an encoder: --set model.encoder=RUN, a run of a language model"
    if "gpu" in needs and plan(config).device.type == "cpu":
        return "it needs a GPU: a CPU would take days"
    return ""


def _print(verdicts: Sequence[Verdict]) -> None:
    rows = [
        {
            "experiment": v.experiment,
            "metric": v.metric,
            "published": f"{v.published:.5g}",
            "ours": f"{v.mean:.4f} ± {v.spread:.4f}" if v.n > 1 else f"{v.mean:.4f}" if v.n else "-",
            "n": v.n,
            "seconds": f"{v.seconds:.1f}" if v.n else "-",
            "verdict": v.verdict,
        }
        for v in verdicts
    ]
    tables.print_frame(pd.DataFrame(rows), title="\nclaims")
