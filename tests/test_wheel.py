"""Built as a wheel and installed outside the repository, dlrun works there too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


@pytest.fixture
def wheel(tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel built from a copy of the sources."""
    from hatchling.build import build_wheel

    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "conf", "src"):
        path = REPOSITORY / name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, source / name)
    monkeypatch.chdir(source)
    built = build_wheel(str(tmp_path))
    monkeypatch.chdir(here)
    return tmp_path / built


def test_a_wheel_holds_the_package_with_its_configuration_and_templates(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "dlrunner/conf/task/collab.yaml" in names
    assert "dlrunner/reporting/html/templates/page.html.j2" in names
    assert "dlrunner/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "runs/"))]


@pytest.mark.slow  # four programs; what the wheel holds is tested above
def test_a_wheel_works_in_an_environment_of_its_own(wheel: Path, tmp_path: Path, here: Path) -> None:
    # An environment with nothing but the wheel; what it depends on is looked up in this one, without dlrunner.
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]  # its own takes 2 s
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    (site,) = (environment / "lib").glob("python*/site-packages")
    parent = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "dependencies.pth").write_text(parent + "\n")
    run = [str(environment / "bin" / "dlrun"), "task=collab", "epochs=1", "log.plots=false", "log.report=false"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(run, cwd=here, env=clean, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "synthetic data" in done.stdout
    assert json.loads((here / "runs" / "latest" / "summary.json").read_text())["status"] == "done"
    where = [str(python), "-c", "import dlrunner; print(dlrunner.__file__)"]
    assert str(site) in subprocess.run(where, cwd=here, env=clean, capture_output=True, text=True, check=True).stdout
