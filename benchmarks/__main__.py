"""Speed, memory and quality of dlrunner and others on the same work, in turn, on this machine.

    make bench                              the speed of all tasks against fastai, Lightning and plain loops
    make bench-check                        some of it, quickly: are the ratios still the stored ones?
    python -m benchmarks tabular            one of collab, tabular, text, sentiment, images (speed), trees (quality)
    python -m benchmarks tabular --rows 3000 --repeats 1      a trial, which writes nothing
    python -m benchmarks own_data own_ratings own_files       quality of defaults on tables, ratings, texts, pictures
    python -m benchmarks growth             time and memory as generated data grows; --only ratings,jobs --sizes 100k,1M
    python -m benchmarks cores              two processes against two threads; engines of sweeps; --only Engines,Tables
    python -m benchmarks summary            write the table of speeds again, from the stored results
    python -m benchmarks limits             how far each speed is from what this machine can do; --only Images,Tables
    python -m benchmarks quick              measure what `make bench-check` compares with

Needs MovieLens of October 2016, rossmann.tgz, dog-breeds.zip and weights/mobilenet_v2_features.pt in DLRUNNER_DATA;
own_files also aclImdb_v1.tar.gz, and own_data eight tables, in tables/: wine, diabetes and breast_cancer.csv (target:
target) of scikit-learn, cars.csv of vega_datasets, randhie.csv.gz of statsmodels, titanic.csv (Kaggle's train.csv),
housing.csv.gz (California, with ocean_proximity), adult.csv.gz (UCI's adult.data, with a line of names; Salary);
installs fastai into .venv-fastai, Lightning into .venv-lightning, and for the quality of defaults scikit-learn,
LightGBM, Surprise and implicit into .venv-peers. Writes benchmarks/results-NAME-DEVICE.md and .json,
speed-DEVICE.md and .json, the table of docs/speed.md, quick-DEVICE.json, and limits.md and .json.
Compare ratios: seconds belong to the machine and the hour.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import (
    checking,
    collab,
    cores,
    growth,
    images,
    limits,
    own_data,
    own_files,
    own_ratings,
    sentiment,
    summary,
    tabular,
    text,
    trees,
)
from benchmarks.measuring import DEVICE, HERE, Options, machine
from dlrunner import __version__
from dlrunner.errors import DlrunnerError

BENCHMARKS = {
    "collab": collab.measure,
    "tabular": tabular.measure,
    "text": text.measure,
    "sentiment": sentiment.measure,
    "images": images.measure,
    "trees": trees.measure,
    "own_data": own_data.measure,
    "own_ratings": own_ratings.measure,
    "own_files": own_files.measure,
    "growth": growth.measure,
    "cores": cores.measure,
}
QUALITY = ("own_data", "own_ratings", "own_files")
"""Quality of the defaults, against other peers than those in speed."""
UNASKED = list(summary.BENCHMARKS)
"""What is measured if nothing is named: what the table of docs/speed.md has."""


def main() -> int:
    """Run the named benchmarks, print the tables and write them."""
    lines = (__doc__ or "").split("\n", 1)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=lines[0],
        epilog=lines[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"{', '.join(BENCHMARKS)}, or limits, summary, quick or check; default: {', '.join(UNASKED)} and quick",
    )
    parser.add_argument("--repeats", type=int, default=3, help="runs of each contestant (3)")
    parser.add_argument("--rows", type=int, help="a trial on this many of Rossmann's rows; nothing is written")
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=[],
        help=f"of growth: {','.join(growth.SUBJECTS)}; of limits and cores: how the titles begin",
    )
    parser.add_argument("--sizes", type=growth.sizes_of, default=[], help="of growth, with --only: 10,100k,25M")
    parser.add_argument("--rival", type=Path, default=HERE.parent / ".venv-fastai", help="fastai's environment")
    parser.add_argument(
        "--lightning", type=Path, default=HERE.parent / ".venv-lightning", help="the folder of Lightning's packages"
    )
    parser.add_argument("--peers", type=Path, default=HERE.parent / ".venv-peers", help="environment of scikit-learn …")
    parser.add_argument("--runs", type=Path, help="runs of dlrunner for the table of trees")
    arguments = parser.parse_args()
    # Made absolute, but not resolved: an environment may be a link, and its Python is one.
    paths = arguments.rival.absolute(), arguments.lightning.absolute(), arguments.peers.absolute()
    options = Options(*paths, arguments.repeats, arguments.rows, arguments.runs, arguments.only, arguments.sizes)
    if arguments.names not in (["limits"], ["cores"]) and (
        unknown := [name for name in arguments.only if name not in growth.SUBJECTS]
    ):
        parser.error(f"--only: {unknown[0]} is none of {', '.join(growth.SUBJECTS)}")
    if arguments.sizes and len(arguments.only) != 1:
        parser.error("--sizes: --only names what they are sizes of")
    names = arguments.names or UNASKED
    if unknown := [name for name in names if name not in (*BENCHMARKS, *OTHERS)]:
        parser.error(f"there is no benchmark {unknown[0]}; there are {', '.join((*BENCHMARKS, *OTHERS))}")
    if len(names) > 1 and (alone := [name for name in names if name in OTHERS]):
        parser.error(f"{alone[0]} cannot be combined with others")
    try:
        if names[0] in OTHERS:
            return OTHERS[names[0]](options)
        _measure(names, options)
        if options.rows is not None:
            return 0
        _summarise(options)
        return 0 if arguments.names else _store(options)
    except DlrunnerError as error:
        sys.exit(str(error))


def _measure(names: Sequence[str], options: Options) -> None:
    if {"own_data", "own_ratings"} & {*names}:
        options.install_peers()
    if not {*names} <= {*QUALITY, "growth", "cores"}:
        options.install()
    for name in names:
        table, record = BENCHMARKS[name](options)
        print(table)
        if options.rows is None:
            (HERE / f"results-{name}-{DEVICE}.md").write_text(table)
            record = {"machine": {**machine(), "dlrunner": __version__}, **record}
            (HERE / f"results-{name}-{DEVICE}.json").write_text(json.dumps(record, indent=1) + "\n")


def _store(options: Options) -> int:
    options.install()
    print(f"written: {checking.store(options).name}")
    return 0


def _summarise(options: Options) -> int:
    for path in summary.write():
        print(f"written: {path.name}")
    return 0


OTHERS: Mapping[str, Callable[[Options], int]] = {
    "limits": limits.measure,
    "summary": _summarise,
    "quick": _store,
    "check": checking.check,
}
"""Other commands."""

if __name__ == "__main__":
    sys.exit(main())
