"""Engines that start the jobs elsewhere: same folders, same results.csv, done jobs skipped, failures shown."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from dlrunner.config.schema import NeedsSettings
from dlrunner.sweeps.engines.base import RemoteJob
from dlrunner.sweeps.folder import Job, JobStatus, SweepDirectory
from dlrunner.sweeps.slots import ResourceSlot
from tests.cli.test_sweep import WORDS, sweep_folder, wait_for
from tests.conftest import QUICK, Dlrun, Forked, start
from tests.scaling import documented

SWEPT = ("-m", "task=collab", "data.path=my.csv", "optim.lr=0.01,1e12,0.02", *QUICK)  # at 1e12 training diverges

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


def check(command: list[str], expected: pd.DataFrame, here: Path, **environment: str) -> None:
    """Sweep twice by a launcher: the results are those of the plain sweep, and only the failure is repeated."""
    words = (*command[1:], *QUICK)
    first = start(*words, cwd=here, **environment)
    out, err = first.communicate()
    assert first.returncode == 1, (out, err)
    assert "[1] FAILED" in out
    assert out.index("FAILED") < out.index("ranking by valid/rmse")
    assert "the loss is nan" in out
    pd.testing.assert_frame_equal(results(sweep_folder(here)), expected, check_exact=True)
    again = start(*words, cwd=here, **environment)
    out, err = again.communicate()
    assert again.returncode == 1, (out, err)
    assert "finished: 2 of 3" in out
    assert "[0] optim.lr" not in out
    assert "[1] FAILED" in out
    pd.testing.assert_frame_equal(results(sweep_folder(here)), expected, check_exact=True)


def check_interruption(launcher: tuple[str, ...], here: Path, **environment: str) -> None:
    """Ctrl-C: the jobs save where they stand; nothing runs on; the same command resumes."""
    words = (*WORDS, "seed=0,1", "epochs=3000", *launcher)
    process = start(*words, cwd=here, **environment)
    wait_for(here, "runs/collab/*/metrics.jsonl", process, count=2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, (out, err)
    assert "the same command resumes" in err
    assert list(results(sweep_folder(here))["status"]) == ["interrupted"] * 2
    rows = [len(file.read_text().splitlines()) for file in (here / "runs" / "collab").glob("*/metrics.jsonl")]
    assert all(0 < count < 3000 for count in rows)
    assert "resumes" in start(*words, "sweep.dry_run=true", cwd=here, **environment).communicate()[0]


@pytest.mark.slow  # five programs that each import torch; jobs of Slurm, submitit's too, are started below
def test_submitit_comes_to_the_same_results(expected: pd.DataFrame, here: Path) -> None:
    check(documented("hydra/launcher=submitit_local"), expected, here)


def test_hydras_basic_launcher_and_sweeper_are_dlrunners_own(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    basic = ("hydra/launcher=basic", "hydra/sweeper=basic", "sweep.fail_fast=true")
    assert dlrun(*WORDS, "optim.lr=1e12,0.02", *basic)[0] == 1
    assert list(results(sweep_folder(here))["status"]) == ["failed", "not started"]


@pytest.mark.slow  # two programs that import torch; jobs of Slurm, submitit's too, are interrupted below
def test_an_interruption_reaches_the_jobs_of_submitit(ratings_csv: Path, here: Path) -> None:
    check_interruption(("hydra/launcher=submitit_local", "sweep.jobs=2"), here)


@pytest.mark.slow  # sleeps while two programs start; jobs that listen are interrupted below
def test_an_interruption_reaches_jobs_that_do_not_listen_yet(ratings_csv: Path, here: Path) -> None:
    # What imports slowly is still imported when the first signal comes, and submitit swallows that.
    (here / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "if 'submitit.core._submit' in ' '.join(sys.orig_argv):\n"
        "    import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    open(f'begun{os.getpid()}', 'w').close(); time.sleep(2)\n"
    )
    words = (*WORDS, "seed=0,1", "epochs=100000", "hydra/launcher=submitit_local", "sweep.jobs=2")
    process = start(*words, cwd=here, PYTHONPATH=f"{here}:{os.environ.get('PYTHONPATH', '')}")
    wait_for(here, "begun*", process, count=2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, (out, err)
    assert list(results(sweep_folder(here))["status"]) == ["interrupted"] * 2


class Silent(RemoteJob):
    """A job that ends without a record."""

    def has_ended(self) -> bool:
        return True

    def cancel(self, signum: int) -> None:
        pass

    def failure_reason(self) -> str:
        return "cancelled in the queue"


def test_a_job_that_is_stopped_in_the_queue_is_interrupted_and_one_that_is_lost_has_failed(here: Path) -> None:
    with SweepDirectory(here / "sweep") as folder:
        jobs = [Job(number, [], {}) for number in range(2)]
        folder.freeze(jobs, {job.number: JobStatus("new", f"{job.number}") for job in jobs})
        stopped, lost = (Silent(job, folder, ResourceSlot()) for job in jobs)
        stopped.stop()
        assert [each.outcome()["status"] for each in (stopped, lost)] == ["interrupted", "failed"]
        assert folder.record(0) == {"status": "interrupted", "error": "cancelled in the queue", "folder": None}


STALLING = """
import time
from pathlib import Path
from dlrunner.tasks.collab.task import Collab

class Stalling(Collab):
    def batches(self, split, epoch, phase, start=0):
        Path(f"stalls{self.seed}").touch()
        while not Path("go").exists():
            time.sleep(0.05)
        return super().batches(split, epoch, phase, start)
"""
STALLS = (*WORDS, "plugins=[stalling]", "task._target_=stalling.Stalling", "hydra/launcher=submitit_local")


@pytest.mark.slow  # waits until a Ctrl-C is a second one; a single one is tested above
def test_a_second_interruption_leaves_no_job_behind(ratings_csv: Path, here: Path) -> None:
    (here / "stalling.py").write_text(STALLING)
    process = start(*STALLS, "seed=0,1", "sweep.jobs=2", cwd=here)
    wait_for(here, "stalls*", process, count=2)
    process.send_signal(signal.SIGINT)
    time.sleep(2.5)  # what comes sooner is the same Ctrl-C
    assert process.poll() is None
    assert len(jobs_of(here)) >= 2
    process.send_signal(signal.SIGINT)
    process.communicate()
    deadline = time.monotonic() + 20
    while left := jobs_of(here):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.mark.parametrize("is_initialized", [True, False])
def test_ray_is_shut_down_only_by_who_has_started_it(is_initialized: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fake = SimpleNamespace(
        is_initialized=lambda: is_initialized,
        init=lambda **_: calls.append("init"),
        shutdown=lambda: calls.append("shutdown"),
        remote=lambda **_: lambda function: function,
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.delitem(sys.modules, "dlrunner.sweeps.engines.ray", raising=False)
    engine = importlib.import_module("dlrunner.sweeps.engines.ray").RayEngine(NeedsSettings())
    del sys.modules["dlrunner.sweeps.engines.ray"]
    engine.close()
    assert calls == ([] if is_initialized else ["init", "shutdown"])


def jobs_of(here: Path) -> list[str]:
    """Return the processes of submitit for sweeps in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (process / "cmdline").read_text().replace("\0", " ")
            found += [line] if "submitit" in line and str(here) in line else []
    return found


@pytest.mark.slow  # starts four programs; waiting for a busy run is tested in test_pool.py
def test_jobs_that_outlive_their_sweep_are_waited_for(ratings_csv: Path, here: Path) -> None:
    (here / "stalling.py").write_text(STALLING)
    first = start(*STALLS, "seed=0,1", cwd=here)
    wait_for(here, "stalls*", first, count=2)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    again = start(*STALLS, "seed=0,1", cwd=here)
    wait_until_said(here, "another process is training this run", again)
    (here / "go").touch()
    out, err = again.communicate()
    assert again.returncode == 0, (out, err)
    assert list(results(sweep_folder(here))["status"]) == ["done"] * 2
    assert len(list((here / "runs" / "collab").glob("*/run.json"))) == 2
    assert "already finished" in out


def wait_until_said(here: Path, text: str, process: Forked) -> None:
    """Wait until both jobs have told the sweep something."""
    deadline = time.monotonic() + 60
    while sum(text in file.read_text() for file in here.glob("runs/sweeps/*/jobs/*/messages.jsonl")) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


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
    job = subprocess.Popen(["bash", sys.argv[-1]], env=os.environ | ids, process_group=0,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    name = "7" if index is None else f"7_{{index}}"
    pathlib.Path("{folder}", name).write_text(str(job.pid))
print("Submitted batch job 7")
"""
SCANCEL = """#!/bin/bash
echo "$1" >> {folder}/cancelled
kill -TERM -- -$(cat {folder}/$1)
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
        "scancel": SCANCEL.format(folder=folder),
    }
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.slow  # four programs that import torch
def test_slurm_gets_the_missing_jobs_as_one_array_with_what_they_need(
    dlrun: Dlrun, ratings_csv: Path, here: Path, slurm: Path
) -> None:
    words = (*documented("hydra/launcher=submitit_slurm")[1:], *QUICK)
    path = f"{slurm}:{os.environ['PATH']}"
    here_first = [word for word in words if not word.startswith(("hydra/", "sweep."))]
    assert dlrun(*(word.replace("seed=0,1,2,3", "seed=0,1") for word in here_first))[0] == 0
    process = start(*words, cwd=here, PATH=path)
    out, err = process.communicate()
    assert process.returncode == 0, (out, err)
    assert "finished: 2 of 4" in out
    text = (slurm / "submissions").read_text()
    for line in ("partition=gpu", "cpus-per-task=1", "gpus-per-node=1", "time=90", "constraint=a100", "array=0-1%2"):
        assert text.count(f"#SBATCH --{line}\n") == 1, line


@pytest.mark.slow  # sleeps while three programs start
def test_an_interruption_reaches_the_jobs_of_slurm(ratings_csv: Path, here: Path, slurm: Path) -> None:
    check_interruption(("hydra/launcher=submitit_slurm",), here, PATH=f"{slurm}:{os.environ['PATH']}")
    assert sorted((slurm / "cancelled").read_text().split()) == ["7_0", "7_1"]


def test_what_slurm_refuses_is_told_in_its_own_words(ratings_csv: Path, here: Path, slurm: Path) -> None:
    (slurm / "sbatch").write_text("#!/bin/bash\necho 'sbatch: error: invalid partition specified: gpus' >&2\nexit 1\n")
    words = (*WORDS, "hydra/launcher=submitit_slurm", "sweep.needs.partition=gpus")
    for seeds in ("seed=0,1", "seed=0"):
        process = start(*words, seeds, cwd=here, PATH=f"{slurm}:{os.environ['PATH']}")
        _, err = process.communicate()
        assert process.returncode == 1
        assert "the jobs were refused: " in err
        assert "invalid partition specified: gpus" in err
        assert "AttributeError" not in err


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
def test_ray_comes_to_the_same_results_on_two_workers(expected: pd.DataFrame, here: Path, ray_address: str) -> None:
    check(documented("hydra/launcher=ray"), expected, here, RAY_ADDRESS=ray_address)


@needs_ray
def test_an_interruption_reaches_the_jobs_of_ray(ratings_csv: Path, here: Path, ray_address: str) -> None:
    check_interruption(("hydra/launcher=ray",), here, RAY_ADDRESS=ray_address)


@pytest.mark.slow  # starts three programs; engines and searches are tested each alone
def test_a_search_hands_its_trials_to_an_engine_too(ratings_csv: Path, here: Path) -> None:
    words = (*WORDS, "hydra/launcher=submitit_local", "hydra/sweeper=optuna", "optim.lr=interval(0.01,0.02)")
    process = start(*words, "sweep.trials=3", "sweep.jobs=2", cwd=here)
    out, err = process.communicate()
    assert process.returncode == 0, (out, err)
    assert list(results(sweep_folder(here))["status"]) == ["done"] * 3


def test_a_missing_package_is_told_by_its_extra_before_anything_starts(
    dlrun: Dlrun, ratings_csv: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlrunner.sweeps.engines.find_spec", lambda name: None)
    engines = ("launcher=submitit_slurm", "launcher=submitit_local", "launcher=ray")
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
        ("hydra/launcher=submitit_local", "hydra.launcher.partition=gpu"): "sweep.needs what each of them needs",
        ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"): "for parallel jobs: sweep.jobs=2",
        ("hydra/sweeper=ax",): "there is no such sweeper",
        ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=5"): "sweep.trials",
        ("hydra/launcher=submitit_local", "sweep.needs.gpus=0.5"): "Slurm assigns whole GPUs",
        ("hydra/launcher=submitit_local", "sweep.needs.gpu=1"): "sweep.needs.gpu: is unknown",
        ("hydra/launcher=submitit_local", "sweep.needs.more={partitoin:x}"): "sweep.needs.more: ",
    }
    for words, said in wrong.items():
        status, _, err = dlrun(*WORDS, "seed=0,1", *words)
        assert status == 2, words
        assert said in err
        assert not list((here / "runs").glob("sweeps/*/jobs")), words
