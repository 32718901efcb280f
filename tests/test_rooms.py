"""The rooms of the package: imports point downwards, and nothing slow is imported before work begins."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import dlrunner

PACKAGE = Path(dlrunner.__file__).parent

LAYERS = (
    ("errors", "_version", "ranges", "renamed"),
    ("files", "metrics", "model", "schedules", "tracker", "data_audit"),
    ("encoder_file", "system"),
    ("task",),
    ("data/core",),
    ("data/images", "data/ratings", "data/tabular", "data/texts"),
    ("data/dogbreeds", "data/imdb", "data/rossmann"),
    ("models/vision",),
    ("models",),
    ("runs", "training"),
    ("claims",),
    ("config", "comparison"),
    ("reporting/terminal",),
    ("reporting/plots", "reporting/html", "reporting"),
    ("tasks/common",),
    ("tasks/collab", "tasks/image", "tasks/tabular", "tasks/text"),
    ("tasks/language",),
    ("tracking", "trackers"),
    ("execution", "inference"),
    ("sweeps",),
    ("sweeps/engines",),
    ("__init__",),
    ("cli",),
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


GRAPH = {name: imports(file) - {name} for name, file in MODULES.items()}


def test_imports_point_downwards() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, others in GRAPH.items()
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
    waiting = dict(GRAPH)
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


def test_help_and_composition_import_neither_torch_nor_pandas() -> None:
    for words in (["--help"], ["--cfg", "job", "task=collab"]):
        script = (
            f"import sys; from dlrunner.cli import main; main({words!r}); "
            "print(sorted({'torch', 'pandas', 'spacy', 'matplotlib'} & set(sys.modules)), file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stderr.strip() == "[]"
        assert "collab" in done.stdout


def test_a_run_does_not_import_the_compiler(ratings_csv: Path) -> None:
    script = (
        "import sys; from dlrunner.cli import main; "
        "main(['task=collab', 'data.path=my.csv', 'epochs=1', 'log.plots=false']); "
        "print('torch._dynamo' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"


def test_no_room_is_named_after_nothing() -> None:
    names = {path.stem for path in PACKAGE.rglob("*.py")} | {path.name for path in PACKAGE.rglob("*") if path.is_dir()}
    assert not names & {"utils", "util", "helpers", "builders", "misc"}
    assert not {path.stem for path in PACKAGE.iterdir()} & {"common", "core", "base"}
