"""The verbs of the command line, one function each."""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from dlrunner.cli.compare import add_compare_options, add_diff_options, compare, diff, with_signs
from dlrunner.cli.conf_paths import with_paths
from dlrunner.cli.parser import Verb
from dlrunner.cli.predictor_verbs import add_plugins_option, check_plugins, predictor_verb
from dlrunner.cli.report import add_report_options, report
from dlrunner.errors import ConfigError, RunError, did_you_mean
from dlrunner.files.paths import user_path

if TYPE_CHECKING:
    pass


def lr_find(arguments: argparse.Namespace) -> int:
    """Run the learning-rate range test on the composed task and model."""
    from dlrunner.cli.compose import compose
    from dlrunner.config.signatures import EarlyCheck

    words = with_paths(arguments.settings)
    config = compose(words)
    EarlyCheck()(config)
    from dlrunner.config.plan import plan
    from dlrunner.execution.member import set_up_process
    from dlrunner.files.atomic import readable_os_errors, write_atomic
    from dlrunner.files.temporary import remove_abandoned
    from dlrunner.reporting.plots import training as plots
    from dlrunner.reporting.terminal.progress import number
    from dlrunner.runs.labels import run_label
    from dlrunner.system.seeding import seed_everything
    from dlrunner.training import lr_finder

    checked = plan(config)
    data = checked.build_data()
    if data and data.identity().source == "synthetic":
        print("DATA: a generated STAND-IN, not the published data")
    set_up_process(checked)
    task = checked.build_task(data, checked.settings.seed)
    dims = task.dims
    seed_everything(checked.settings.seed)
    model, trainer = checked.build_model(dims), checked.build_trainer(checked.settings.seed)
    for note in model.load_pretrained():
        print(f"note: {note}")
    for note in trainer.prepare(task, model, print):
        print(f"note: {note}")
    found = lr_finder.range_test(task, model, checked.make_optimizer, trainer)

    name = f"{checked.settings.choices.get('task')},{run_label(words, checked.settings.choices)}"
    folder = user_path(checked.settings.runs_dir) / "lr-find" / f"{name}-{checked.signature}"
    with readable_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        rows = zip(found.rates, found.losses, found.smoothed, strict=True)
        text = "lr,loss,smoothed\n" + "".join(f"{lr:.6g},{loss:.6g},{mean:.6g}\n" for lr, loss, mean in rows)
        write_atomic(folder / "lr_find.csv", text.encode())
        picture = plots.lr_range(found.rates, found.losses, found.smoothed, found.suggestion, folder / "lr_find.png")
    print(f"{len(found.rates)} steps, {'stopped when the loss diverged' if found.diverged else 'to the end'}")
    print("       lr   smoothed loss")
    step = max(1, len(found.rates) // 12)
    for rate, loss in list(zip(found.rates, found.smoothed, strict=True))[::step]:
        print(f"{rate:9.1e}   {number(loss)}")
    if found.suggestion is None:
        print("no suggestion: the loss does not fall anywhere; look at the picture")
    else:
        shares = [rate / checked.phases[0].lr[-1] for rate in checked.phases[0].lr]
        rates = ",".join(f"{found.suggestion * share:.1e}" for share in shares)
        print(f"suggestion: optim.lr={f'[{rates}]' if len(shares) > 1 else rates} (where the loss falls fastest)")
    print(f"picture  {picture}\ntable    {folder / 'lr_find.csv'}")
    return 0


def export(arguments: argparse.Namespace) -> int:
    """Write what a run has trained into a folder for others."""
    from dlrunner.inference.models import without_trackers
    from dlrunner.runs.reader import FinishedRun, shorter

    finished = FinishedRun.read(user_path(arguments.run))
    check_plugins(without_trackers(finished.config), arguments.plugins)
    from dlrunner.inference.export import export as write
    from dlrunner.inference.onnx import TOLERANCE

    done = write(finished, arguments.out, arguments.onnx)
    print(f"{shorter(done.folder)}: {', '.join(done.files)}")
    if done.difference is not None:
        print(f"onnx: differs by {done.difference:.1e} from torch, at most {TOLERANCE:.0e} is allowed")
    print(f'in Python: import dlrunner; predictor = dlrunner.load("{shorter(done.folder)}")')
    if done.no_graph:
        raise RunError(f"no ONNX graph, the rest is whole: {done.no_graph}")
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Print what a run's folder tells."""
    from dlrunner.reporting.terminal import tables

    tables.print_run(user_path(arguments.run))
    return 0


def replay(arguments: argparse.Namespace) -> int:
    """Repeat a run from its folder alone and compare."""
    from dlrunner.runs.reader import FinishedRun

    finished = FinishedRun.read(user_path(arguments.run))
    check_plugins(finished.config, arguments.plugins)
    from dlrunner.execution.replay import replay as repeat

    return repeat(finished, arguments.data_dir or os.environ.get("DLRUNNER_DATA"))


def reproduce(arguments: argparse.Namespace) -> int:
    """Run published recipes again and judge their results."""
    from dlrunner.cli.reproduce import reproduce as run_claims

    return run_claims(arguments)


def data(arguments: argparse.Namespace) -> int:
    """Tell which data is where, or fetch what its publisher lets one fetch unattended."""
    from dlrunner.data.core import source as files
    from dlrunner.data.core.published import published

    data_dir = user_path(os.environ.get("DLRUNNER_DATA", "data"))
    known = published(arguments.plugins)
    if arguments.action == "get":
        if arguments.name not in known:
            near = did_you_mean(arguments.name or "", known)
            raise ConfigError(f"there is no data {arguments.name!r} to get; {near}")
        place = files.download(known[arguments.name], data_dir)
        print(f"{arguments.name}: {place.path}")
        return 0
    said = "DLRUNNER_DATA" if "DLRUNNER_DATA" in os.environ else "the default; DLRUNNER_DATA sets another"
    print(f"data folder: {data_dir} ({said})\n")
    for release in known.values():
        found = files.find(data_dir, [release])
        where = str(found[1].path) if found else "not here"
        if not found:
            where += (
                f"; dlrun data get {release.name}"
                if release.url
                else f"; put {release.archives[0]}{release.suffix} there"
            )
        sha256 = found[1].sha256(release.layouts[0]) if found else release.sha256_of_layout or "-"
        facts = {
            release.name: release.title,
            "  where": where,
            "  sha256": f"{sha256} ({release.layouts[0]})",
            "  home": release.home,
            "  terms": release.terms,
        }
        width = max(map(len, facts))
        for name, value in facts.items():
            print(f"{name:<{width}}  {value}")
    return 0


def info(arguments: argparse.Namespace) -> int:
    """Print versions, devices and places; nothing is imported to ask for its version."""
    from dlrunner.cli.conf_paths import conf_dirs
    from dlrunner.data.core.source import cache_dir
    from dlrunner.reporting.terminal import tables
    from dlrunner.system import machine

    free = shutil.disk_usage(Path.cwd()).free / 2**30
    tables.print_pairs(
        [
            *machine.versions().items(),
            ("devices", ", ".join(machine.devices())),
            ("configuration", ", ".join(str(place) for place in conf_dirs())),
            ("data", os.environ.get("DLRUNNER_DATA", "data")),
            ("cache", str(cache_dir())),
            ("disk", f"{free:.0f} GiB free here"),
        ]
    )
    return 0


def _lr_find_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("settings", nargs="+", metavar="NAME=VALUE", help="what a run would be asked for")


def _export_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where it goes (default: RUN/export)")
    parser.add_argument("--onnx", action="store_true", help="an ONNX graph too, compared with torch")
    add_plugins_option(parser)


def _show_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="?", default="runs/latest", help="a run folder")


def _replay_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run folder")
    parser.add_argument("--data-dir", metavar="DIR", help="where the data is now (default: DLRUNNER_DATA)")
    add_plugins_option(parser)


def _reproduce_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("patterns", nargs="*", default=["*"], metavar="PATTERN", help="experiments: 'movielens-*' (default: all)")
    add("--seeds", type=int, default=5, metavar="N", help="runs of each")
    add("--quick", action="store_true", help="only claims that need less than two minutes a seed")
    add("--jobs", default="1", metavar="N", help="runs in parallel, or auto")
    add("--out", metavar="FOLDER", help="for claims.md, claims.json, claims.xml (default: runs/claims/…)")
    add("--results", metavar="FILE", help="put the verdicts into this file of all results")
    add("--readme", metavar="FILE", help="write the table of --results into this README")
    add("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings for all runs")


def _data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=["get"], help="download a release")
    parser.add_argument("name", nargs="?", metavar="NAME", help="the release")
    parser.add_argument(
        "--plugins", nargs="*", default=[], metavar="MODULE", help="your modules with RELEASES of your own"
    )


def _no_options(parser: argparse.ArgumentParser) -> None:
    """For a verb that takes none."""


VERBS: dict[str, Verb] = {
    "lr-find": Verb(
        "task=collab",
        "learning-rate range test: plot, table, suggestion",
        "dlrun lr-find task=collab optim=adamw",
        _lr_find_options,
        lr_find,
    ),
    "predict": predictor_verb(
        "predict", "RUN [FILE]", "use what a run has trained on new rows, texts or images", "dlrun predict RUN new.csv"
    ),
    "generate": predictor_verb(
        "generate", 'RUN "text"', "let a language model continue a text", 'dlrun generate RUN "the film"'
    ),
    "next-words": predictor_verb(
        "next_words", 'RUN "text"', "list the likeliest next words", 'dlrun next-words RUN "the film"'
    ),
    "explain": predictor_verb(
        "explain", "RUN IMAGE", "show which parts of an image a prediction depends on", "dlrun explain RUN dog.jpg"
    ),
    "recommend": predictor_verb(
        "recommend", "RUN USER", "recommend items that a user has not rated", "dlrun recommend RUN 42 --top 5"
    ),
    "similar": predictor_verb("similar", "RUN ITEM", "list the items most like one", 'dlrun similar RUN "Toy Story"'),
    "export": Verb(
        "RUN [--onnx]",
        "write what a run has trained for others: weights and a model card",
        "dlrun export runs/latest --onnx",
        _export_options,
        export,
    ),
    "show": Verb(
        "RUN", "print what a run's folder holds: settings, data, results", "dlrun show runs/latest", _show_options, show
    ),
    "compare": Verb(
        "RUN... | SWEEP",
        "compare runs: differing settings, mean ± std, verdict, curves, importance",
        "dlrun compare runs/collab/* --by optim --curves curves.png",
        add_compare_options,
        compare,
        lambda parser, words: with_signs(words),
    ),
    "report": Verb(
        "RUN | SWEEP | CLAIMS",
        "write one HTML file: what was asked, the verdict, curves, tables, terms",
        "dlrun report runs/latest --open yes",
        add_report_options,
        report,
    ),
    "diff": Verb(
        "A B",
        "print what differs between two runs, and where their numbers part",
        "dlrun diff runs/collab/first runs/latest",
        add_diff_options,
        diff,
    ),
    "replay": Verb(
        "RUN",
        "repeat a run from its folder alone and tell whether the result is identical",
        "dlrun replay runs/latest --data-dir data",
        _replay_options,
        replay,
    ),
    "reproduce": Verb(
        "'movielens-*' --seeds 5",
        "run published recipes and judge their claims; exit status 1 when one is missed",
        "dlrun reproduce 'movielens-*' --seeds 5",
        _reproduce_options,
        reproduce,
    ),
    "data": Verb(
        "[get NAME]",
        "list the published data: where it is, release, sha256, terms; get downloads it",
        "dlrun data get ml-100k",
        _data_options,
        data,
    ),
    "info": Verb("", "print versions, devices, folders", "dlrun info", _no_options, info),
}
"""In the order in which `dlrun --help` lists them."""
