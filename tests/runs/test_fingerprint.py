"""The digest of the code: it changes with what decides results, and with nothing else."""

from __future__ import annotations

import functools
import importlib
import shutil
import sys
import time
from pathlib import Path

import pytest

from dlrunner.config.binding import import_plugin
from dlrunner.errors import ConfigError
from dlrunner.runs import fingerprint
from dlrunner.runs.fingerprint import EXCLUDED, INCLUDED, PACKAGE, code_digest, without_docstrings

OTHER_ROOMS = {
    *(
        "__init__",
        "__main__",
        "_version",
        "audit_flags",
        "claims",
        "cli",
        "comparison",
        "conf",
        "data_audit",
        "errors",
        "execution",
    ),
    *(
        "files",
        "inference",
        "plot",
        "prediction_table",
        "predictor",
        "predictor_inputs",
        "ranges",
        "renamed",
        "reporting",
        "runs",
        "serving",
        "sweeps",
        "tracker",
        "trackers",
        "tracking",
    ),
}
"""What shows, stores, compares or starts runs; of `execution` a few modules decide."""


_PARSED_ONCE = functools.cache(without_docstrings)


@pytest.fixture(autouse=True)
def _as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "_digest", functools.cache(fingerprint._digest.__wrapped__))
    monkeypatch.setattr(fingerprint, "without_docstrings", _PARSED_ONCE)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACKAGE, tmp_path / "dlrunner", ignore=shutil.ignore_patterns("__pycache__")))


def changes(package: Path, name: str, old: str, new: str) -> bool:
    """Edit a file of the package and tell whether that changes the digest."""
    file, before = package / name, code_digest(package=package)
    text = file.read_text()
    assert old in text, f"{name} has no {old!r} any more"
    file.write_text(text.replace(old, new, 1))
    fingerprint._digest.cache_clear()
    return code_digest(package=package) != before


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("reporting/plots/training.py", "import", "# another colour\nimport"),
        ("reporting/plots/tabular.py", "import", "# another colour\nimport"),
        ("tasks/tabular/analysis.py", "import", "# another colour\nimport"),
        ("tasks/collab/predictor.py", "import", "# another order\nimport"),
        ("tasks/collab/ensemble_predictor.py", "import", "# another sample\nimport"),
        ("tasks/collab/implicit_predictor.py", "import", "# another order\nimport"),
        ("tasks/tabular/rossmann_predictor.py", "import", "# another note\nimport"),
        ("config/suggestions.py", "import", "# another synonym\nimport"),
        ("cli/verbs.py", "import", "# another verb\nimport"),
        ("runs/directory.py", "import", "# another file\nimport"),
        ("tasks/language/predictor.py", "import", "# another answer\nimport"),
        ("tasks/language/task.py", '"""', '"""Another. '),
        ("models/text.py", '        """Load', '        """Fetch'),
        (
            "metrics.py",
            '    """mean(|outputs - targets|)."""',
            '    """The mean\n\n    of |outputs - targets|.\n    """',
        ),
    ],
)
def test_what_decides_nothing_makes_no_run_stale(package: Path, name: str, old: str, new: str) -> None:
    assert not changes(package, name, old, new)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (
            "data/core/targets.py",
            "F.cross_entropy(outputs.float(), targets)",
            "2 * F.cross_entropy(outputs.float(), targets)",
        ),
        ("models/collab.py", "return", "return 2 *"),
        ("models/tabular_layers.py", "target_low=fitted", "target_low=2 * fitted"),
        ("execution/initial_weights.py", "own[name].shape == value.shape", "value.ndim > 1"),
        ("data/core/batching.py", "return", "return 2 *"),
        ("schedules.py", "return", "return 2 *"),
        ("metrics.py", "math.sqrt(", "2 * math.sqrt("),
        ("config/plan.py", "return", "return 2 *"),
        ("encoder_file.py", '"encoder.pt"', '"weights.pt"'),
        ("system/precision.py", "return torch.get_autocast_dtype(kind)", "return torch.float32"),
    ],
)
def test_what_decides_results_makes_runs_stale(package: Path, name: str, old: str, new: str) -> None:
    assert changes(package, name, old, new)


@pytest.mark.parametrize("name", sorted(path.name for path in (PACKAGE / "training").glob("*.py")))
def test_the_training_loop_decides(package: Path, name: str) -> None:
    file = package / "training" / name
    before = code_digest(package=package)
    file.write_text(f"{file.read_text()}\nlater = 1\n")
    fingerprint._digest.cache_clear()
    assert (code_digest(package=package) != before) == (name != "lr_finder.py")


def test_every_module_is_known_to_decide_or_not() -> None:
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or any(path.rglob("*.py"))}
    unknown = found - set(INCLUDED) - OTHER_ROOMS
    assert not unknown, "new modules: add them to fingerprint.INCLUDED, or to OTHER_ROOMS here"
    assert all((PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file() for name in INCLUDED)
    assert all(any(PACKAGE.glob(pattern)) for pattern in EXCLUDED)


def test_a_plugin_counts_as_a_whole(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(here))
    for name in ("mine", "mine_too"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (here / "mine_too").mkdir()
    (here / "mine_too" / "__init__.py").touch()
    for file in (here / "mine.py", here / "mine_too" / "task.py"):
        file.write_text('"""One thing."""\n')
        before = code_digest(["mine", "mine_too"] if file.parent != here else ["mine"])
        file.write_text('"""Another thing."""\n')
        assert code_digest(["mine", "mine_too"] if file.parent != here else ["mine"]) != before


@pytest.mark.parametrize("changed", ["helper.py", "deeper.py", "parts/core.py", "parts/__init__.py"])
def test_what_a_plugin_imports_from_its_folder_counts(
    changed: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(here))
    (here / "parts").mkdir()
    (here / "parts" / "__init__.py").write_text("")
    (here / "parts" / "core.py").write_text("WIDTH = 1\n")
    (here / "deeper.py").write_text("DEPTH = 1\n")
    (here / "helper.py").write_text("import os\nimport torch\nfrom deeper import DEPTH\n")
    (here / "beside.py").write_text("")
    (here / "plugged.py").write_text("from helper import DEPTH\nimport parts.core as core\n")
    before = code_digest(["plugged"])
    (here / "beside.py").write_text("not_imported = True\n")
    assert code_digest(["plugged"]) == before
    (here / changed).write_text(f"{(here / changed).read_text()}\nchanged = True\n")
    assert code_digest(["plugged"]) != before


def test_of_a_dotted_plugin_the_whole_package_counts(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(here))
    (here / "packed").mkdir()
    for name in ("__init__", "task", "other"):
        (here / "packed" / f"{name}.py").write_text("")
    before = code_digest(["packed.task"])
    (here / "packed" / "other.py").write_text("changed = True\n")
    assert code_digest(["packed.task"]) != before


def test_what_was_imported_counts_though_files_are_edited_meanwhile(package: Path) -> None:
    before = code_digest(package=package)
    (package / "metrics.py").write_text("")
    assert code_digest(package=package) == before


def test_a_docstring_may_come_and_go() -> None:
    bare = b"import os\n\nclass Net:\n    size = 1\n\n    def wide(self):\n        return 'a'  # \xc3\xa4\n"
    told = (
        b'"""A module."""\n\nimport os\n\nclass Net:\n    """A net.\n\n    Of one layer.\n    """\n\n    size = 1\n'
        b'    """Its width."""\n\n    def wide(self):\n        "Tell."\n\n        return \'a\'  # \xc3\xa4\n'
    )
    assert without_docstrings(told).replace(b"\n\n", b"\n") == bare.replace(b"\n\n", b"\n")
    assert without_docstrings(b"s = 'no docstring'\n\n\nx = 1\n") == b"s = 'no docstring'\n\n\nx = 1\n"
    assert without_docstrings(b"def half(") == b"def half("


def test_the_digest_takes_a_moment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fingerprint, "without_docstrings", without_docstrings)
    seconds = []
    for number in range(3):
        monkeypatch.setenv("DLRUNNER_CACHE", str(tmp_path / str(number)))
        fingerprint._digest.cache_clear()
        start = time.process_time()
        code_digest()
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.8  # CPU time: 0.08 s where it was written, 0.41 next to two other jobs


def test_the_source_is_parsed_once_by_all_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    parsed: list[bytes] = []

    def parse(source: bytes) -> bytes:
        parsed.append(source)
        return without_docstrings(source)

    monkeypatch.setattr(fingerprint, "without_docstrings", parse)
    monkeypatch.setenv("DLRUNNER_CACHE", str(tmp_path / "cache"))
    first = code_digest()
    assert parsed
    parsed.clear()
    fingerprint._digest.cache_clear()
    assert code_digest() == first
    assert not parsed
    monkeypatch.setenv("DLRUNNER_CACHE", str(tmp_path / "file" / "cache"))  # cannot be written
    (tmp_path / "file").touch()
    fingerprint._digest.cache_clear()
    assert code_digest() == first


def test_a_module_that_is_asked_for_counts_although_runs_leave_it_out() -> None:
    assert "training/lr_finder.py" in EXCLUDED
    assert code_digest(also=("training/lr_finder",)) != code_digest()
    assert code_digest(also=("training",)) == code_digest()


def test_an_edited_plugin_is_not_taken_for_the_imported_one(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (here / "scaled_by.py").write_text("FACTOR = 1\n")
    (here / "edited.py").write_text("from scaled_by import FACTOR\n")
    problems: list[str] = []
    import_plugin("edited", problems)
    assert not problems
    before = code_digest(["edited"])
    for name in ("edited", "scaled_by"):
        text = (here / f"{name}.py").read_text()
        (here / f"{name}.py").write_text(f"{text}# another\n")
        with pytest.raises(ConfigError, match=rf"{name}\.py was edited after it had been imported"):
            code_digest(["edited"])
        (here / f"{name}.py").write_text(text)
        assert code_digest(["edited"]) == before
    (here / "edited.py").write_text("FACTOR = 2\n")
    importlib.reload(sys.modules["edited"])
    assert code_digest(["edited"]) != before
    for name in ("edited", "scaled_by"):
        del sys.modules[name]
