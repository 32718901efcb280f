"""The rooms of the package: imports point downwards, and nothing slow is imported before work begins."""

from __future__ import annotations

import ast
import functools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import dlrunner
from tests.fake_runs import write_run

PACKAGE = Path(dlrunner.__file__).parent

LAYERS = (
    ("errors", "_version", "ranges", "renamed", "audit_flags"),
    ("files", "metrics", "model", "plot", "row_blocks", "schedules", "tracker", "data_audit"),
    (
        "classification_metrics",
        "encoder_file",
        "prediction_table",
        "predictor",
        "predictor_inputs",
        "system",
        "regression_metrics",
    ),
    ("task", "data"),
    ("data/core",),
    ("data/tables",),
    ("data/images", "data/ratings", "data/tabular", "data/texts"),
    ("data/dogbreeds", "data/imdb", "data/rossmann", "data/sample_sales", "data/segmentation"),
    ("data/camvid",),
    ("models/vision",),
    ("models",),
    ("runs", "training"),
    ("claims",),
    ("config", "comparison"),
    ("reporting/terminal",),
    ("reporting/plots", "reporting/html", "reporting"),
    ("tasks",),
    ("tasks/collab", "tasks/image", "tasks/tabular", "tasks/text"),
    ("tasks/language", "tasks/segmentation"),
    ("tracking", "trackers"),
    ("execution", "inference"),
    ("serving",),
    ("sweeps",),
    ("sweeps/engines",),
    ("cli",),
    ("__init__",),
    ("__main__",),
)
"""All rooms and single modules, from the lowest layer up: each imports from lower layers and from itself only."""


def modules() -> dict[str, Path]:
    """Return the files of the package by dotted name; a package is its `__init__`."""
    found = {}
    for file in PACKAGE.rglob("*.py"):
        name = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = file
    return found


MODULES = modules()


def imports(file: Path) -> set[str]:
    """Return the modules of dlrunner that a file imports, anywhere in it: lazily, or for its types only, too."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "dlrunner":
            base = (node.module or "").removeprefix("dlrunner").lstrip(".")
            for alias in node.names:
                name = f"{base}.{alias.name}".lstrip(".")
                found.add(name if name in MODULES else base or "__init__")
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("dlrunner.") for a in node.names if a.name.startswith("dlrunner.")}
    return found


def room(module: str) -> str:
    """Return the room of a module: its folder, or itself where it stands alone at the top."""
    file = MODULES[module].relative_to(PACKAGE)
    return file.parent.as_posix() if len(file.parts) > 1 else file.stem


def layer(module: str) -> int:
    """Return the number of a module's layer, from below; a folder without a layer of its own belongs to its parent."""
    place = Path(room(module))
    for each in (place, *place.parents):
        for number, rooms in enumerate(LAYERS):
            if each.as_posix() in rooms:
                return number
    raise AssertionError(f"{module} is in a room that LAYERS does not name")


@functools.cache
def graph() -> dict[str, set[str]]:
    """Return the modules that each module imports."""
    return {name: imports(file) - {name} for name, file in MODULES.items()}


def test_imports_point_downwards() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, others in graph().items()
        for other in others
        if not (layer(other) < layer(module) or room(module) == room(other))
    ]
    assert not wrong


def test_every_layer_names_rooms_that_exist() -> None:
    rooms = {room(module) for module in MODULES if module}
    named = [name for names in LAYERS for name in names]
    assert len(named) == len(set(named))
    assert set(named) <= rooms


def test_no_modules_import_each_other_in_a_circle() -> None:
    waiting = dict(graph())
    while True:
        imported = {other for others in waiting.values() for other in others}
        outside = [name for name, others in waiting.items() if not others & waiting.keys() or name not in imported]
        if not outside:
            break
        for name in outside:
            del waiting[name]
    assert not waiting.keys(), "each of these imports another one of them"


def test_only_the_command_line_knows_hydra_and_omegaconf() -> None:
    for file in PACKAGE.rglob("*.py"):
        names = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(file.read_text()))
            for name in (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
        }
        if "cli" not in file.relative_to(PACKAGE).parts:
            assert not names & {"hydra", "omegaconf"}, file


def circles() -> list[list[str]]:
    """Return the groups of modules that import each other, lazily or for types alone too."""
    files = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    files = {name.removesuffix(".__init__"): path for name, path in files.items()}
    graph = {name: imports(path) & set(files) - {name} for name, path in files.items()}
    reachable: dict[str, set[str]] = {}
    for name in graph:
        found, left = set[str](), [*graph[name]]
        while left:
            if (each := left.pop()) not in found:
                found.add(each)
                left += graph[each]
        reachable[name] = found
    groups = {
        tuple(sorted(other for other in reachable[name] if name in reachable[other]))
        for name in graph
        if name in reachable[name]
    }
    return [list(group) for group in sorted(groups)]


def test_no_two_modules_of_the_command_line_import_each_other() -> None:
    assert not [group for group in circles() if any(name.startswith("cli") for name in group)]


SLOW = {"torch", "pandas", "matplotlib", "spacy", "sklearn", "scipy"}


def slow_imports(commands: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Do commands one after the other in a process of their own; return what each of them imported that is slow."""
    script = (
        "import contextlib, io, json, sys\n"
        "from dlrunner.cli import main\n"
        "found, before = {}, set()\n"
        f"for words in {[list(words) for words in commands]!r}:\n"
        "    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:\n"
        "        try:\n"
        "            status = main(words)\n"
        "        except SystemExit as left:\n"
        "            status = left.code\n"
        f"    slow = {SLOW!r} & set(sys.modules)\n"
        "    found[' '.join(words)] = [status, sorted(slow - before), err.getvalue()]\n"
        "    before = slow\n"
        "print(json.dumps(found))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    found: dict[str, tuple[int, list[str], str]] = json.loads(done.stdout)
    assert {words: err for words, (status, _, err) in found.items() if status not in (0, 2)} == {}
    return {words: slow for words, (_, slow, _) in found.items() if slow}


def test_what_only_reads_or_answers_imports_nothing_slow(here: Path) -> None:
    from dlrunner.cli.verbs import VERBS

    for name, value in (("a", 0.9), ("b", 0.8)):
        write_run(here / "runs" / "collab" / name, value, history=[{"epoch": 1, "step": 2, "valid/rmse": value}])
    commands = [
        *([], ["--help"], ["--version"], ["info"], ["data"]),
        *(["ls"], ["ls", "task=collab", "optim=adamw", "--json"], ["du"], ["show", "task=collab"], ["prune"]),
        *(["tag", "runs/collab/a", "x"], ["recipe", "runs/collab/a"], ["rm", "runs/collab/c"]),
        *(["show", "runs/collab/a"], ["diff", "runs/collab/a", "runs/collab/b"]),
        *(["--cfg", "job", "task=collab"], ["--cfg", "job", "experiment=movielens-best", "optim.lr=1"]),
        *([name, "--help"] for name in VERBS),
        *([name, "runs/collab/a", "--help"] for name in ("predict", "recommend")),
    ]
    assert slow_imports(commands) == {}


def test_a_wrong_request_imports_nothing_slow(here: Path) -> None:
    (here / "my.csv").write_text("user,item,rating\n1,2,3\n")
    write_run(here / "runs" / "collab" / "a", 0.9)
    wrong = [
        *("epchs=3", "epochs=-1", "epochs=many", "precision=fp8", "optim=adm", "optim.lrr=1", "optim.lr=-1"),
        *("data.sauce=real", "model.factors=0", "trainer.clip=0", "schedule.warmpu=1", "task.x=1", "log.progress=no"),
        *("+seed=1.5", "model=5", "hydra/launcher=joblib"),
    ]
    commands = [
        *(["task=collab", word] for word in wrong),
        *(["-m", "task=collab", "optim.lrr=1,2"], ["-m", "task=collab", "optim.lr=0.1,-1"]),
        *(["-m", "task=collab", "seed=0,1", "hydra/launcher=joblib"], ["task=collab", "epochs=-1", "seeds=3"]),
        *(
            ["task=colab"],
            ["trian"],
            ["compare", "a", "--metrc", "x"],
            ["show", "runs/nothing"],
            ["lr-find", "epchs=1"],
            ["predict", "runs/collab/a", "--tp", "5"],
            ["explain", "runs/collab/a"],
            ["explan", "runs/collab/a"],
        ),
        ["lr-find", "task=collab", "model.factor=5"],
    ]
    assert slow_imports(commands) == {}


def test_comparing_imports_no_torch(here: Path) -> None:
    for name, value in (("a", 0.9), ("b", 0.8)):
        write_run(here / "runs" / "collab" / name, value)
    found = slow_imports([["compare", "runs/collab/*"], ["report", "runs/collab/a"]])
    assert not {"torch", "matplotlib", "spacy"} & {name for slow in found.values() for name in slow}


def test_a_run_imports_without_garbage_collections_and_without_the_compiler(ratings_csv: Path) -> None:
    script = (
        "import gc, sys; from dlrunner import cli; collections = []; "
        "gc.callbacks.append(lambda *_: collections.append(1)); cli._import_frozen(); gc.callbacks.clear(); "
        "print(len(collections), gc.isenabled(), file=sys.stderr); "
        "cli.main(['task=collab', 'data.path=my.csv', 'epochs=1', 'log.plots=false']); "
        "print('torch._dynamo' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.split() == ["0", "True", "False"]


def test_the_last_collections_of_a_command_visit_nothing() -> None:
    script = (
        "import atexit, gc; from dlrunner import cli; "
        "atexit.register(lambda: print(gc.get_freeze_count() > 1000)); "  # called after what `main` registers
        "cli.main(['--version']); print(gc.get_freeze_count())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == ["0", "True"]


def test_no_room_is_named_after_nothing() -> None:
    names = {path.stem for path in PACKAGE.rglob("*.py")} | {path.name for path in PACKAGE.rglob("*") if path.is_dir()}
    assert not names & {"utils", "util", "helpers", "builders", "misc"}
    assert not {path.stem for path in PACKAGE.iterdir()} & {"common", "core", "base"}
