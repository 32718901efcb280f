"""Built as a wheel and installed outside the repository, dlrun works there too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.conftest import REPOSITORY


def test_a_wheel_works_in_an_environment_of_its_own(tmp_path: Path, here: Path) -> None:
    source = tmp_path / "source"
    kept = ("pyproject.toml", "README.md", "LICENSE", "conf", "src")
    for name in kept:
        path = REPOSITORY / name
        (shutil.copytree if path.is_dir() else shutil.copy)(path, _made(source) / name)
    shutil.rmtree(source / "src" / "dlrunner" / "__pycache__", ignore_errors=True)
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path / "dist"),
        str(source),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("dlrunner-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "dlrunner/conf/task/collab.yaml" in names
    assert "dlrunner/reporting/html/templates/page.html.j2" in names
    assert "dlrunner/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "runs/"))]

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


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder
