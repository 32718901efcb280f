"""Engines that start the jobs elsewhere: same folders, same results.csv, done jobs skipped, failures shown."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.test_sweeping import WORDS, sweep_folder, wait_for
from tests.conftest import Dlrun, start

SWEPT = (*WORDS, "optim.lr=0.01,1e12,0.02")  # at 1e12 training diverges

needs_ray = pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs the extra ray: 76 MB to download")


def results(folder: Path) -> pd.DataFrame:
    """Return a sweep's results without what differs from time to time and from place to place."""
    return pd.read_csv(folder / "results.csv").drop(columns=["seconds", "folder"])


@pytest.fixture
def expected(dlrun: Dlrun, ratings_csv: Path, here: Path) -> pd.DataFrame:
    """What the jobs come to when dlrun runs them itself."""
    assert dlrun(*SWEPT, "runs_dir=plain")[0] == 1
    (folder,) = (here / "plain" / "sweeps").iterdir()
    return results(folder)


def check(launcher: tuple[str, ...], expected: pd.DataFrame, here: Path, **environment: str) -> None:
    """Sweep twice by a launcher: the results are those of the plain sweep, and only the failure is repeated."""
    first = start(*SWEPT, *launcher, cwd=here, **environment)
    out, err = first.communicate()
    assert first.returncode == 1, (out, err)
    assert "[1] FAILED" in out
    assert out.index("FAILED") < out.index("ranking by valid/rmse")
    assert "the loss is nan" in out
    pd.testing.assert_frame_equal(results(sweep_folder(here)), expected, check_exact=True)
    again = start(*SWEPT, *launcher, cwd=here, **environment)
    out, err = again.communicate()
    assert again.returncode == 1, (out, err)
    assert "done already: 2 of 3" in out
    assert "[0] optim.lr" not in out
    assert "[1] FAILED" in out
    pd.testing.assert_frame_equal(results(sweep_folder(here)), expected, check_exact=True)


def check_interruption(launcher: tuple[str, ...], here: Path, **environment: str) -> None:
    """Ctrl-C: the jobs save where they stand; nothing runs on; the same command goes on."""
    words = (*WORDS, "seed=0,1", "epochs=3000", *launcher)
    process = start(*words, cwd=here, **environment)
    wait_for(here, "runs/collab/*/metrics.jsonl", process, count=2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, (out, err)
    assert "the same command goes on" in err
    assert list(results(sweep_folder(here))["status"]) == ["interrupted"] * 2
    rows = [len(file.read_text().splitlines()) for file in (here / "runs" / "collab").glob("*/metrics.jsonl")]
    assert all(0 < count < 3000 for count in rows)
    assert "goes on" in start(*words, "sweep.dry_run=true", cwd=here, **environment).communicate()[0]


@pytest.mark.slow
def test_joblib_comes_to_the_same_results(expected: pd.DataFrame, here: Path) -> None:
    check(("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"), expected, here)


@pytest.mark.slow
def test_submitit_comes_to_the_same_results(expected: pd.DataFrame, here: Path) -> None:
    check(("hydra/launcher=submitit_local",), expected, here)


@pytest.mark.slow
def test_an_interruption_reaches_the_jobs_of_submitit(ratings_csv: Path, here: Path) -> None:
    check_interruption(("hydra/launcher=submitit_local", "sweep.jobs=2"), here)


SBATCH = """#!{python}
import os, pathlib, re, subprocess, sys
text = pathlib.Path(sys.argv[-1]).read_text()
with open("{folder}/submissions", "a") as file:
    file.write(text)
array = re.search(r"--array=0-(\\d+)", text)
for index in range(int(array[1]) + 1) if array else [None]:
    ids = {{"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS": "1", "SLURM_NODEID": "0"}}
    ids |= {{"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_JOB_NODELIST": "here"}}
    if index is not None:
        ids |= {{"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(index)}}
    subprocess.Popen(["bash", sys.argv[-1]], env=os.environ | ids, process_group=0,
                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("Submitted batch job 7")
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Path:
    """The commands of Slurm that submitit calls, as scripts that run the jobs here at once."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    scripts = {
        "sbatch": SBATCH.format(python=sys.executable, folder=folder),
        "srun": '#!/bin/bash\nwhile [[ "$1" == --* ]]; do case "$1" in --*=*) shift;; --unbuffered) shift;; *) '
        'shift 2;; esac; done\nexec "$@"\n',
        "sacct": "#!/bin/bash\necho 'JobID|State|NodeList'\n",
        "scancel": "#!/bin/bash\nexit 0\n",
    }
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.slow
def test_slurm_gets_the_missing_jobs_as_one_array_with_what_they_need(
    ratings_csv: Path, here: Path, slurm: Path
) -> None:
    needs = ("sweep.needs.partition=gpu", "sweep.needs.cpus=1", "sweep.needs.gpus=1", "sweep.needs.minutes=90")
    words = (*WORDS, "hydra/launcher=submitit_slurm", "sweep.jobs=2", *needs, "sweep.needs.more={constraint:a100}")
    path = f"{slurm}:{os.environ['PATH']}"
    process = start(*words, "seed=0,1", "device=cpu", cwd=here, PATH=path)
    out, err = process.communicate()
    assert process.returncode == 0, (out, err)
    process = start(*words, "seed=0,1,2,3", "device=cpu", cwd=here, PATH=path)
    out, err = process.communicate()
    assert process.returncode == 0, (out, err)
    assert "done already: 2 of 4" in out
    text = (slurm / "submissions").read_text()
    for line in ("partition=gpu", "cpus-per-task=1", "gpus-per-node=1", "time=90", "constraint=a100", "array=0-1%2"):
        assert text.count(f"#SBATCH --{line}\n") == 2, line


CLUSTER = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """A Ray cluster of two workers, one core each; in a process of its own, for one with Ray in it cannot be forked."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", CLUSTER], stdin=pipe, stdout=pipe, text=True) as cluster:
        assert cluster.stdout
        yield cluster.stdout.readline().strip()
        cluster.communicate()


@needs_ray
@pytest.mark.slow
def test_ray_comes_to_the_same_results_on_two_workers(expected: pd.DataFrame, here: Path, ray_address: str) -> None:
    check(("hydra/launcher=ray",), expected, here, RAY_ADDRESS=ray_address)


@needs_ray
@pytest.mark.slow
def test_an_interruption_reaches_the_jobs_of_ray(ratings_csv: Path, here: Path, ray_address: str) -> None:
    check_interruption(("hydra/launcher=ray",), here, RAY_ADDRESS=ray_address)


@pytest.mark.slow
def test_a_search_hands_its_trials_to_an_engine_too(ratings_csv: Path, here: Path) -> None:
    words = (*WORDS, "hydra/launcher=submitit_local", "hydra/sweeper=optuna", "optim.lr=interval(0.01,0.02)")
    process = start(*words, "sweep.trials=3", "sweep.jobs=2", cwd=here)
    out, err = process.communicate()
    assert process.returncode == 0, (out, err)
    assert list(results(sweep_folder(here))["status"]) == ["done"] * 3


def test_a_missing_package_is_told_by_its_extra_before_anything_starts(
    dlrun: Dlrun, ratings_csv: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    engines = ("launcher=joblib", "launcher=submitit_slurm", "launcher=submitit_local", "launcher=ray")
    for word in (*engines, "sweeper=optuna"):
        status, _, err = dlrun(*WORDS, "seed=0,1", f"hydra/{word}")
        extra = word.partition("=")[2].partition("_")[0]
        assert status == 2
        assert f"hydra/{word} needs a package that is not installed: pip install 'dlrunner[{extra}]'" in err
    assert not (here / "runs").exists()


def test_mistakes_about_engines_are_told_before_anything_starts(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    wrong = {
        ("hydra/launcher=submitit_slurn",): "did you mean submitit_slurm?",
        ("hydra/launcher=submitit_slurm",): "hydra/launcher=submitit_slurm: Could not detect",
        ("hydra/launcher=submitit_local", "hydra.launcher.partition=gpu"): "the settings are sweep.needs",
        ("hydra/launcher=submitit_local", "sweep.needs.gpus=0.5"): "Slurm gives whole GPUs",
        ("hydra/launcher=submitit_local", "sweep.needs.gpu=1"): "sweep.needs.gpu: is unknown",
        ("hydra/launcher=submitit_local", "sweep.needs.more={partitoin:x}"): "sweep.needs.more: ",
    }
    for words, said in wrong.items():
        status, _, err = dlrun(*WORDS, "seed=0,1", *words)
        assert status == 2, words
        assert said in err
        assert not list((here / "runs").glob("sweeps/*/jobs")), words
