"""The verbs of the command line, one function each."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dlrunner.cli.conf_paths import file_to_write
from dlrunner.errors import ConfigError, DlrunnerError, RunError, did_you_mean
from dlrunner.files.paths import user_path

ANSWERS = ("predict", "generate", "explain")
"""Verbs that a task may answer, with methods of these names."""

USAGES = {
    "dlrun task=collab optim=adamw": "one run; asked again, it is shown again or goes on",
    "dlrun -m task=collab optim=sgd,adamw seed=0,1": "a sweep: every combination, results.csv, a ranking",
    "dlrun experiment=movielens-dot-bias": "a published recipe, checked against its claim",
    "dlrun reproduce 'movielens-*' --seeds 5": "claims -> verdicts; exit status 1 when one is missed",
    "dlrun lr-find task=collab": "learning-rate range test: picture, table, suggestion",
    "dlrun predict RUN [FILE]": "use what was trained (dlrun predict RUN --help)",
    'dlrun generate RUN "text"': "let a language model go on",
    "dlrun explain RUN IMAGE": "what an answer about a picture rests on",
    "dlrun export RUN [--onnx]": "for others: weights and a model card; in Python dlrunner.load(RUN)",
    "dlrun show RUN": "what a run's folder tells (RUN may be runs/latest)",
    "dlrun compare RUN... | SWEEP": "what differs, metrics ± spread, a verdict, curves, which setting mattered",
    "dlrun report RUN | SWEEP | CLAIMS": "one HTML file: what was asked, the verdict, curves, tables, terms",
    "dlrun diff A B": "what differs between two runs, and where their numbers part",
    "dlrun replay RUN": "the same run again from its folder: identical?",
    "dlrun data [get NAME]": "which data is where, with release, sha256 and terms",
    "dlrun info": "versions, devices, places",
}


def lr_find(words: list[str]) -> int:
    """Run the learning-rate range test on the composed task and model."""
    if not words or words[0] in ("-h", "--help"):
        print("usage: dlrun lr-find task=collab [name=value ...]")
        return 0 if words else 2
    from dlrunner.cli.compose import compose

    config = compose(words)
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


def predict(words: list[str]) -> int:
    """Use a finished run on new rows."""
    parser = argparse.ArgumentParser(
        prog="dlrun predict RUN", description="Use what a run has trained.", add_help=False
    )
    if not words or words[0].startswith("-"):
        print("usage: dlrun predict RUN [options]; `dlrun predict RUN --help` tells what this run can answer")
        return 0 if words[:1] in (["-h"], ["--help"]) else 2
    parser.add_argument("--out", metavar="CSV", help="write the answer there too")
    parser.add_argument("--raw", action="store_true", help="write texts that look like formulas as they are")
    task_class, arguments, state, models = _trained(parser, words, "predict")
    from dlrunner.reporting.terminal import tables

    out = file_to_write(arguments.out) if arguments.out else None
    with _answering(words[0]):
        answer = task_class.predict(state, models, arguments)
    num_quoted = 0
    if out:
        from dlrunner.files.atomic import readable_os_errors, write_atomic
        from dlrunner.files.spreadsheet import as_csv

        content, num_quoted = as_csv(answer, arguments.raw or getattr(arguments, "submission", False))
        with readable_os_errors(out):
            if out.is_file() or not out.exists():
                write_atomic(out.resolve(), content)
            else:  # a pipe
                out.write_bytes(content)
    tables.print_frame(answer.head(1000) if arguments.out is None else answer.head(20), answer.attrs.get("note"))
    if arguments.out:
        print(f"{len(answer):,} rows: {arguments.out}")
        if num_quoted:
            print(
                f"note: {num_quoted:,} texts begin like a formula (with =, +, -, @, tab) and have a ' before them, so "
                "that no spreadsheet runs them; --raw writes them as they are"
            )
    elif len(answer) > 1000:
        print(f"… {len(answer) - 1000:,} more rows; --out FILE writes all")
    return 0


def generate(words: list[str]) -> int:
    """Let a finished run go on from a text."""
    return _say(words, "generate", '"text"', "Let a language model go on from a text.")


def explain(words: list[str]) -> int:
    """Show what a finished run's answer rests on."""
    return _say(words, "explain", "IMAGE", "Show what an answer rests on.")


def export(words: list[str]) -> int:
    """Write what a run has trained into a folder for others."""
    parser = argparse.ArgumentParser(
        prog="dlrun export", description="Write what a run has trained into a folder for others, with a model card."
    )
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where (default: RUN/export)")
    parser.add_argument("--onnx", action="store_true", help="an ONNX graph too, compared with torch")
    _add_plugins(parser)
    arguments = parser.parse_args(words)
    from dlrunner.inference.models import without_trackers
    from dlrunner.runs.reader import FinishedRun, shorter

    finished = FinishedRun.read(user_path(arguments.run))
    _check_plugins(without_trackers(finished.config), arguments.plugins)
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


def _say(words: list[str], verb: str, example: str, description: str) -> int:
    """Print what a finished run answers to a verb in words."""
    parser = argparse.ArgumentParser(prog=f"dlrun {verb} RUN", description=description, add_help=False)
    if not words or words[0].startswith("-"):
        print(f"usage: dlrun {verb} RUN {example} [options]; `dlrun {verb} RUN --help` tells the options")
        return 0 if words[:1] in (["-h"], ["--help"]) else 2
    task_class, arguments, state, models = _trained(parser, words, verb)
    with _answering(words[0]):
        answer = getattr(task_class, verb)(state, models, arguments)
    print(answer)
    return 0


@contextlib.contextmanager
def _answering(run: str) -> Iterator[None]:
    """Tell in a sentence where no answer can be made of what a run has stored: it may come from anyone."""
    try:
        yield
    except (DlrunnerError, OSError, MemoryError):
        raise
    except Exception as error:
        first = (str(error).splitlines() or [""])[0][:200]
        raise RunError(
            f"{run} gives no answer ({type(error).__name__}: {first}): what it has stored in task.pt may be damaged, "
            "or of another version"
        ) from error


def _trained(
    parser: argparse.ArgumentParser, words: list[str], verb: str
) -> tuple[Any, argparse.Namespace, dict[str, Any], list[Any]]:
    """Read a finished run and what is asked of it: its task's class, the arguments, the stored state, the models."""
    parser.add_argument("--help", "-h", action="help", help="show this text")
    parser.add_argument("--checkpoint", default="last.pt", metavar="FILE", help="last.pt, best.pt, cycle-2.pt …")
    _add_plugins(parser)
    from dlrunner.runs.reader import FinishedRun

    finished = FinishedRun.read(user_path(words[0]))
    from dlrunner.inference.models import load_models, plan_for_answers, without_trackers

    early = argparse.ArgumentParser(add_help=False)  # the other options are those of the run's task
    _add_plugins(early)
    _check_plugins(without_trackers(finished.config), early.parse_known_args(words[1:])[0].plugins)
    task_class: Any = plan_for_answers(finished.config).task.factory
    from dlrunner.task import Task

    answering = [name for name in ANSWERS if getattr(task_class, name).__func__ is not getattr(Task, name).__func__]
    if verb not in answering:
        others = " or ".join(f"`dlrun {name}`" for name in answering)
        raise ConfigError(f"{task_class.__name__} cannot {verb}{f'; {others} may answer' if others else ''}")
    getattr(task_class, f"add_{verb}_arguments")(parser)
    arguments = parser.parse_args(words[1:])
    _, state, models = load_models(finished, arguments.checkpoint)
    return task_class, arguments, state, models


def show(words: list[str]) -> int:
    """Print what a run's folder tells."""
    parser = argparse.ArgumentParser(prog="dlrun show", description="Print what a run's folder tells.")
    parser.add_argument(
        "run", metavar="RUN", nargs="?", default="runs/latest", help="a run folder (default: runs/latest)"
    )
    from dlrunner.reporting.terminal import tables

    tables.print_run(user_path(parser.parse_args(words).run))
    return 0


def replay(words: list[str]) -> int:
    """Repeat a run from its folder alone and compare."""
    parser = argparse.ArgumentParser(prog="dlrun replay", description="Repeat a run from its folder: identical?")
    parser.add_argument("run", metavar="RUN")
    parser.add_argument("--data-dir", metavar="DIR", help="where the data is now")
    _add_plugins(parser)
    arguments = parser.parse_args(words)
    from dlrunner.runs.reader import FinishedRun

    finished = FinishedRun.read(user_path(arguments.run))
    _check_plugins(finished.config, arguments.plugins)
    from dlrunner.execution.replay import replay as repeat

    return repeat(finished, arguments.data_dir or os.environ.get("DLRUNNER_DATA"))


def reproduce(words: list[str]) -> int:
    """Earn published figures again."""
    from dlrunner.cli.reproduce import reproduce as earn

    return earn(words)


def compare(words: list[str]) -> int:
    """Put runs beside each other."""
    from dlrunner.cli.compare import compare as put_beside

    return put_beside(words)


def report(words: list[str]) -> int:
    """Write what a folder holds into one HTML file."""
    from dlrunner.cli.report import report as write

    return write(words)


def diff(words: list[str]) -> int:
    """Tell what differs between two runs."""
    from dlrunner.cli.compare import diff as tell

    return tell(words)


def data(words: list[str]) -> int:
    """Tell which data is where, or fetch what its publisher lets one fetch unattended."""
    parser = argparse.ArgumentParser(
        prog="dlrun data", description="Which data is where; `dlrun data get NAME` fetches."
    )
    parser.add_argument("verb", nargs="?", choices=["get"], help="fetch a release")
    parser.add_argument("name", nargs="?", metavar="NAME")
    arguments = parser.parse_args(words)
    from dlrunner.data.core import source as files
    from dlrunner.data.dogbreeds import dataset as dogbreeds
    from dlrunner.data.imdb import dataset as imdb
    from dlrunner.data.ratings import dataset as ratings
    from dlrunner.data.rossmann import dataset as rossmann
    from dlrunner.reporting.terminal import tables

    data_dir = user_path(os.environ.get("DLRUNNER_DATA", "data"))
    modules: list[Any] = [ratings, rossmann, imdb, dogbreeds]
    releases = {release.name: release for module in modules for release in module.RELEASES}
    if arguments.verb == "get":
        if arguments.name not in releases:
            near = did_you_mean(arguments.name or "", releases)
            raise ConfigError(f"there is no data {arguments.name!r} to get; {near}")
        place = files.download(releases[arguments.name], data_dir)
        print(f"{arguments.name}: {place.path}")
        return 0
    said = "DLRUNNER_DATA" if "DLRUNNER_DATA" in os.environ else "the default; DLRUNNER_DATA sets another"
    print(f"data folder: {data_dir} ({said})\n")
    for release in releases.values():
        found = files.find(data_dir, [release])
        where = str(found[1].path) if found else "not here"
        if not found:
            where += (
                f"; dlrun data get {release.name}"
                if release.url
                else f"; put {release.archives[0]}{release.suffix} there"
            )
        sha256 = found[1].sha256(release.layouts[0]) if found else release.sha256_of_layout or "-"
        tables.print_pairs(
            [
                (release.name, release.title),
                ("  where", where),
                ("  sha256", f"{sha256} ({release.layouts[0]})"),
                ("  home", release.home),
                ("  terms", release.terms),
            ]
        )
    return 0


def info(words: list[str]) -> int:
    """Print versions, devices and places."""
    argparse.ArgumentParser(prog="dlrun info", description="Versions, devices, places.").parse_args(words)
    import torch

    from dlrunner.cli.conf_paths import conf_dirs
    from dlrunner.data.core.source import cache_dir
    from dlrunner.reporting.terminal import tables
    from dlrunner.system import machine
    from dlrunner.system.parallel import num_cores

    devices = [f"cpu ({num_cores()} cores, {torch.get_num_threads()} threads)"]
    devices += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    devices += ["mps"] if torch.backends.mps.is_available() else []
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    tables.print_pairs(
        [
            *machine.versions().items(),
            ("devices", ", ".join(devices)),
            ("configuration", ", ".join(str(place) for place in conf_dirs())),
            ("data", os.environ.get("DLRUNNER_DATA", "data")),
            ("cache", str(cache_dir())),
            ("disk", f"{free:.0f} GiB free here"),
        ]
    )
    return 0


def _add_plugins(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plugins", nargs="*", default=[], metavar="MODULE", help="your modules that the run may import"
    )


def _check_plugins(config: dict[str, Any], allowed: list[str]) -> None:
    """A folder that came from elsewhere executes nothing by being read: its modules must be named by who reads it."""
    from dlrunner.inference.models import unnamed_plugins

    if asked := unnamed_plugins(config, allowed):
        raise ConfigError(
            f"this run imports {', '.join(asked)}; if you trust it, add: --plugins {' '.join(config['plugins'])}"
        )


VERBS: dict[str, Callable[[list[str]], int]] = {
    "lr-find": lr_find,
    "predict": predict,
    "generate": generate,
    "explain": explain,
    "export": export,
    "show": show,
    "compare": compare,
    "report": report,
    "diff": diff,
    "replay": replay,
    "reproduce": reproduce,
    "data": data,
    "info": info,
}
