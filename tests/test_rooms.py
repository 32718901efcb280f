"""The rooms of the package: imports point downwards, and nothing slow is imported before work begins."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import dlrunner

PACKAGE = Path(dlrunner.__file__).parent

ABOVE = ["tasks", "models", "cli", "runner", "dispatch", "looks", "data", "training", "task", "model"]
"""What stands above the rooms that know run folders at most."""

MAY_NOT_IMPORT = {
    "cli": ["tasks.", "models."],
    "training": ["tasks", "models", "cli", "runner", "dispatch", "looks", "data", "runs"],
    "task": ["tasks", "models", "cli", "runner", "dispatch", "looks", "data", "runs", "training"],
    "protocol": [*ABOVE, "runs"],
    "claims": [*ABOVE, "runs"],
    "model": ["tasks", "models", "cli", "runner", "dispatch", "looks", "data", "runs", "training", "task"],
    "models": ["tasks", "cli", "runner", "dispatch", "looks", "data", "runs", "training", "task"],
    "data": ["tasks", "models", "cli", "runner", "dispatch", "looks", "runs", "training", "model"],
    "tasks": ["cli", "runner", "dispatch", "training", "runs"],
    "looks": ["cli", "runner", "dispatch", "training", "tasks", "models"],
    "metrics": [*ABOVE, "runs"],
    "schedules": [*ABOVE, "runs"],
    "runs": ABOVE,
    "atomic": [*ABOVE, "runs"],
    "fingerprint": [*ABOVE, "runs"],
    "comparing": ABOVE,
    "comparing/judging": [*ABOVE, "runs"],
    "trained/loading": ["tasks", "models", "cli", "runner", "looks", "data", "training"],
    "trained/exporting": ["tasks", "models", "cli", "runner", "data", "training"],
    "trained/portable": ABOVE,
    "trained/graphs": ["tasks", "models", "cli", "runner", "dispatch", "looks", "data", "training", "runs"],
    "tracker": [*ABOVE, "runs"],
    "trackers": [*ABOVE, "runs"],
    "relaying": [*ABOVE, "runs", "trackers"],
    "tracking": ["tasks", "models", "cli", "runner", "looks", "data", "task", "model", "trackers"],
    "dispatch": ["tasks", "models", "cli", "runner", "looks", "data", "runs", "trackers"],
    "engines": ["tasks", "models", "cli", "looks", "runner", "training"],
    "searching": ["tasks", "models", "cli", "looks", "runner", "training", "jobs", "runs", "data"],
    "runner": ["cli", "tasks", "models"],
}


def imports(file: Path) -> set[str]:
    """Return the modules of dlrunner that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("dlrunner"):
            base = node.module.removeprefix("dlrunner").lstrip(".")
            found |= {base} if base else {alias.name for alias in node.names}
            found |= {f"{base}.{alias.name}".lstrip(".") for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("dlrunner.") for a in node.names if a.name.startswith("dlrunner.")}
    return found


def test_imports_point_downwards() -> None:
    wrong = []
    for room, forbidden in MAY_NOT_IMPORT.items():
        files = [*PACKAGE.glob(f"{room}.py"), *(PACKAGE / room).rglob("*.py")]
        assert files, room
        for file in files:
            for name in imports(file):
                if any(name == f or name.startswith(f"{f.rstrip('.')}.") for f in forbidden):
                    wrong.append(f"{file.relative_to(PACKAGE)} imports {name}")
    assert not wrong


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
        "main(['task=collab', 'data.path=my.csv', 'epochs=1', 'log.pictures=false']); "
        "print('torch._dynamo' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "False"


def test_no_room_is_named_after_nothing() -> None:
    names = {path.stem for path in PACKAGE.rglob("*.py")} | {path.name for path in PACKAGE.rglob("*") if path.is_dir()}
    assert not names & {"utils", "util", "helpers", "common", "core", "base", "builders", "misc"}
