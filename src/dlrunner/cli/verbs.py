"""The verbs of the command line, one function each."""

from __future__ import annotations

import argparse
import fnmatch
import os
import shutil
from pathlib import Path

from dlrunner.cli.compare import add_compare_options, add_diff_options, compare, diff, with_signs
from dlrunner.cli.conf_paths import options_of, with_paths
from dlrunner.cli.data import data, data_options
from dlrunner.cli.parser import Verb
from dlrunner.cli.perplexity import add_perplexity_options, perplexity
from dlrunner.cli.predictor_verbs import add_plugins_option, check_plugins, predictor_verb
from dlrunner.cli.report import add_report_options, report
from dlrunner.cli.run_names import LATEST, METAVAR_HELP, name_run, named_run
from dlrunner.cli.run_verbs import RUN_VERBS
from dlrunner.cli.serve import add_serve_options, serve
from dlrunner.errors import ConfigError, RunError, did_you_mean
from dlrunner.files.paths import user_path


def lr_find(arguments: argparse.Namespace) -> int:
    """Run the learning-rate range test on the composed task and model."""
    from dlrunner.cli.compose import compose
    from dlrunner.config.signatures import EarlyCheck

    words = with_paths(arguments.settings)
    config = compose(words)
    EarlyCheck()(config)
    from dlrunner.config.auto_values import with_values
    from dlrunner.config.plan import plan
    from dlrunner.execution.auto_settings import decide, find_rate
    from dlrunner.execution.identity import identity_of, synthetic_data_warning
    from dlrunner.files.atomic import readable_os_errors, write_atomic
    from dlrunner.files.temporary import remove_abandoned
    from dlrunner.reporting.plots import training as plots
    from dlrunner.reporting.terminal.progress import number
    from dlrunner.runs.labels import LENGTH, run_label

    if config["optim"].get("lr") == "auto":  # the test starts without a rate
        config = with_values(config, {"optim.lr": 1.0})
    checked = plan(config)
    checked.check_model_files()
    data = checked.build_data()
    if data and data.identity().source == "synthetic":
        print(synthetic_data_warning(checked))
    checked, _ = decide(checked, data, identity_of(data), print)
    found = find_rate(checked, checked.build_task(data, checked.settings.seed), print)

    task = str(checked.settings.choices.get("task"))
    name = f"{task},{run_label(words, checked.settings.choices, length=LENGTH - len(task) - 1)}"
    folder = user_path(checked.settings.runs_dir) / "lr-find" / f"{name}-{checked.signature}"
    with readable_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        rows = zip(found.rates, found.losses, found.smoothed, strict=True)
        text = "lr,loss,smoothed\n" + "".join(f"{lr:.6g},{loss:.6g},{mean:.6g}\n" for lr, loss, mean in rows)
        write_atomic(folder / "lr_find.csv", text.encode())
        plot = plots.lr_range(found.rates, found.losses, found.smoothed, found.suggestion, folder / "lr_find.png")
    print(f"{len(found.rates)} steps, {'stopped when the loss diverged' if found.diverged else 'completed'}")
    print("       lr   smoothed loss")
    step = max(1, len(found.rates) // 12)
    for rate, loss in list(zip(found.rates, found.smoothed, strict=True))[::step]:
        print(f"{rate:9.1e}   {number(loss)}")
    if found.suggestion is None:
        print("no suggestion: the loss does not decrease anywhere; see the plot")
    else:
        factors = [rate / checked.phases[0].lr[-1] for rate in checked.phases[0].lr]
        rates = ",".join(f"{found.suggestion * factor:.1e}" for factor in factors)
        print(f"suggestion: optim.lr={f'[{rates}]' if len(factors) > 1 else rates} (steepest decrease of the loss)")
    print(f"plot     {plot}\ntable    {folder / 'lr_find.csv'}")
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Export the trained model of a run."""
    from dlrunner.inference.plugins import without_trackers
    from dlrunner.runs.reader import FinishedRun, shorter

    finished = FinishedRun.read(named_run(arguments.run))
    check_plugins(without_trackers(finished.config), arguments.plugins)
    from dlrunner.inference.export import export as write
    from dlrunner.inference.onnx import TOLERANCE

    done = write(finished, arguments.out, arguments.onnx)
    print(f"{shorter(done.folder)}: {', '.join(done.files)}")
    if done.difference is not None:
        print(f"onnx: maximum difference to torch {done.difference:.1e} (tolerance {TOLERANCE:.0e})")
    print(f'in Python: import dlrunner; predictor = dlrunner.load("{shorter(done.folder)}")')
    if done.no_graph:
        raise RunError(f"no ONNX graph; all other files were written: {done.no_graph}")
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Print the contents of a run folder."""
    from dlrunner.reporting.terminal import tables

    tables.print_run(named_run(arguments.run))
    return 0


def replay(arguments: argparse.Namespace) -> int:
    """Repeat a run from its folder alone and compare the results."""
    from dlrunner.runs.reader import FinishedRun

    finished = FinishedRun.read(named_run(arguments.run))
    check_plugins(finished.config, arguments.plugins)
    from dlrunner.execution.replay import replay as repeat

    return repeat(finished, arguments.data_dir or os.environ.get("DLRUNNER_DATA"))


def reproduce(arguments: argparse.Namespace) -> int:
    """Run published recipes and check their claims."""
    names = options_of("experiment")
    for pattern in arguments.patterns:
        if not fnmatch.filter(names, pattern):  # before torch is imported
            raise ConfigError(f"no experiment with a claim matches {pattern}; {did_you_mean(pattern, names)}")
    from dlrunner.cli.reproduce import reproduce as run_claims

    return run_claims(arguments)


def info(arguments: argparse.Namespace) -> int:
    """Print versions, devices and folders, without importing the packages."""
    from dlrunner.cli.conf_paths import conf_dirs
    from dlrunner.data.core.cache import cache_dir
    from dlrunner.reporting.terminal import tables
    from dlrunner.system import machine

    free = shutil.disk_usage(Path.cwd()).free / 2**30
    tables.print_pairs(
        [
            *machine.versions().items(),
            ("devices", ", ".join(machine.devices())),
            ("configuration", ", ".join(str(path) for path in conf_dirs())),
            ("data", os.environ.get("DLRUNNER_DATA", "data")),
            ("cache", str(cache_dir())),
            ("disk", f"{free:.0f} GiB free"),
        ]
    )
    return 0


def _lr_find_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("settings", nargs="+", metavar="NAME=VALUE", help="the settings of the run")


def _export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help=METAVAR_HELP)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="output folder (default: RUN/export)")
    parser.add_argument("--onnx", action="store_true", help="also export an ONNX graph, verified against torch")
    add_plugins_option(parser)


def _show_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="?", default=LATEST, help=METAVAR_HELP)


def _replay_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help=METAVAR_HELP)
    parser.add_argument("--data-dir", metavar="DIR", help="the data folder (default: DLRUNNER_DATA)")
    add_plugins_option(parser)


def _reproduce_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("patterns", nargs="*", default=["*"], metavar="PATTERN", help="experiments: 'movielens-*' (default: all)")
    add("--seeds", type=int, default=5, metavar="N", help="runs per experiment")
    add("--quick", action="store_true", help="only claims that need less than two minutes per seed")
    add("--jobs", default="1", metavar="N", help="runs in parallel, or auto")
    add("--out", metavar="FOLDER", help="folder of claims.md, claims.json, claims.xml (default: runs/claims/…)")
    add("--results", metavar="FILE", help="update the verdicts in this file")
    add("--markdown", metavar="FILE", help="update the table on this Markdown page from --results")
    add("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings for all runs")


def _no_options(parser: argparse.ArgumentParser) -> None:
    """Add nothing."""


VERBS: dict[str, Verb] = {
    "lr-find": Verb(
        "task=collab",
        "run a learning-rate range test",
        "dlrun lr-find task=collab optim=adamw",
        _lr_find_options,
        lr_find,
    ),
    "predict": predictor_verb(
        "predict", "RUN [FILE]", "predict new rows, texts or images", "dlrun predict RUN new.csv"
    ),
    "generate": predictor_verb(
        "generate", 'RUN "text"', "continue a text with a language model", 'dlrun generate RUN "the film"'
    ),
    "next-words": predictor_verb(
        "next_words", 'RUN "text"', "list the most likely next words", 'dlrun next-words RUN "the film"'
    ),
    "perplexity": Verb(
        "RUN [--cache N]",
        "perplexity with a cache and with n-grams",
        "dlrun perplexity runs/latest --cache 2000 --ngram 4",
        add_perplexity_options,
        perplexity,
        name_run,
        prints_result=True,
    ),
    "explain": predictor_verb(
        "explain", "RUN IMAGE", "draw the image regions behind a prediction", "dlrun explain RUN dog.jpg"
    ),
    "recommend": predictor_verb(
        "recommend", "RUN USER", "recommend items that a user has not rated", "dlrun recommend RUN 42 --top 5"
    ),
    "similar": predictor_verb("similar", "RUN ITEM", "list the most similar items", 'dlrun similar RUN "Toy Story"'),
    "export": Verb(
        "RUN [--onnx]",
        "export weights, preprocessing, model card",
        "dlrun export runs/latest --onnx",
        _export_options,
        export,
        name_run,
    ),
    "serve": Verb(
        "RUN [--port N]",
        "answer predictions over HTTP",
        "dlrun serve runs/latest --port 8000",
        add_serve_options,
        serve,
        name_run,
    ),
    "show": Verb(
        "RUN",
        "print a run: command, data, metrics, results",
        "dlrun show runs/latest",
        _show_options,
        show,
        name_run,
        prints_result=True,
    ),
    **RUN_VERBS,
    "compare": Verb(
        "RUN... | SWEEP",
        "compare runs: settings, mean ± std, verdict",
        "dlrun compare runs/collab/* --by optim --curves curves.png",
        add_compare_options,
        compare,
        lambda parser, words: with_signs(words),
        prints_result=True,
    ),
    "report": Verb(
        "RUN | SWEEP | CLAIMS",
        "write an HTML report: curves, tables, plots",
        "dlrun report runs/latest --open yes",
        add_report_options,
        report,
        name_run,
    ),
    "diff": Verb(
        "A B",
        "print the differences between two runs",
        "dlrun diff runs/collab/first runs/latest",
        add_diff_options,
        diff,
        prints_result=True,
    ),
    "replay": Verb(
        "RUN",
        "repeat a run from its folder and compare",
        "dlrun replay runs/latest --data-dir data",
        _replay_options,
        replay,
        name_run,
    ),
    "reproduce": Verb(
        "'movielens-*'",
        "run published recipes and check their claims",
        "dlrun reproduce 'movielens-*' --seeds 5",
        _reproduce_options,
        reproduce,
    ),
    "data": Verb(
        "[describe FILE|get NAME]",
        "how a table is read; sample and published data",
        "dlrun data describe sales.csv",
        data_options,
        data,
        prints_result=True,
    ),
    "info": Verb("", "print versions, devices, folders", "dlrun info", _no_options, info, prints_result=True),
}
"""In the order in which `dlrun --help` lists them."""
