"""Jobs side by side: what each may use, and what happens when memory is at an end."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from jinja2 import Environment

from dlrunner.errors import BusyError
from dlrunner.sweeps.engines.base import RemoteCall
from dlrunner.sweeps.folder import Job, JobStatus, SweepDirectory
from dlrunner.sweeps.job_process import BUSY_TIMEOUT, _Messenger, _run_when_free
from dlrunner.sweeps.pool import modules_of, start_fork_server
from dlrunner.sweeps.slots import ResourceSlot, resource_slots
from tests.conftest import QUICK, Dlrun
from tests.fake_runs import write_run


def jobs(number: int, device: str = "auto", num_threads: int | None = None) -> list[Job]:
    config: dict[str, Any] = {"device": device, "trainer": {"num_threads": num_threads}}
    return [Job(index, [], config) for index in range(number)]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("dlrunner.sweeps.slots.num_cores", lambda: 16)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_cores_are_divided_among_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlrunner.sweeps.slots.num_cores", lambda: 8)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert resource_slots(1, jobs(9)) == [ResourceSlot(None)]
    assert resource_slots(3, jobs(9)) == [ResourceSlot(2)] * 3
    assert resource_slots("auto", jobs(9)) == [ResourceSlot(1)] * 8
    assert resource_slots("auto", jobs(9, num_threads=3)) == [ResourceSlot(4)] * 2
    assert resource_slots("auto", jobs(2)) == [ResourceSlot(4)] * 2


def test_each_job_has_a_gpu_or_the_stated_share_of_one(gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resource_slots("auto", jobs(9)) == [ResourceSlot(8, "0"), ResourceSlot(8, "1")]
    assert resource_slots("auto", jobs(9), gpu_share=0.5) == [ResourceSlot(4, gpu) for gpu in ("0", "1", "0", "1")]
    assert resource_slots(1, jobs(9)) == [ResourceSlot(None, "0")]
    assert resource_slots(9, jobs(9), gpu_share=0.3) == [ResourceSlot(2, gpu) for gpu in ("0", "1", "0", "1", "0", "1")]
    assert resource_slots(2, jobs(9, device="cpu")) == [ResourceSlot(8)] * 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert resource_slots("auto", jobs(9)) == [ResourceSlot(8, "5"), ResourceSlot(8, "7")]


PLUGIN = """
import os
import pathlib
import time
import torch
from dlrunner.tasks.collab.task import Collab

PATIENCE = 5  # seconds that a job waits for the other one, when it runs for the first time

class Hungry(Collab):
    def metrics(self):
        place = pathlib.Path("running")
        place.mkdir(exist_ok=True)
        mine = place / str(os.getpid())
        mine.touch()
        deadline = time.monotonic() + (0 if pathlib.Path(f"threads{self.seed}").exists() else PATIENCE)
        while not (beside := len(list(place.iterdir())) > 1) and time.monotonic() < deadline:
            time.sleep(0.01)
        if beside:
            time.sleep(0.2)  # so that the other job sees this one
        with open(f"threads{self.seed}", "a") as file:
            file.write(f"{torch.get_num_threads()} {os.environ.get('CUDA_VISIBLE_DEVICES')}\\n")
        mine.unlink()
        if beside and self.seed == 1:
            raise MemoryError
        return super().metrics()
"""


def sweep_words(here: Path, module: str, text: str) -> tuple[str, ...]:
    """Return a sweep over two seeds with a plugin; modules of one name would be taken for each other."""
    (here / f"{module}.py").write_text(text)
    words = ("-m", "task=collab", "data.path=my.csv", "epochs=1", "seed=0,1", "trainer.num_threads=null", *QUICK)
    return (*words, f"plugins=[{module}]", f"task._target_={module}.Hungry")


def config_of(path: str | None, **log: bool) -> dict[str, Any]:
    data = {"_target_": "dlrunner.data.x.X", "path": path}
    return {"task": {"_target_": "dlrunner.tasks.x.X"}, "data": data, "model": None, "log": log}


def test_jobs_find_imported_what_their_data_and_their_report_need() -> None:
    own = modules_of([Job(0, [], config_of("my.csv", report=True, plots=False))])
    assert {"dlrunner.tasks.x", "duckdb", "dlrunner.reporting.html.compiled"} <= set(own)
    published = modules_of([Job(0, [], config_of(None, report=False, plots=False))])
    assert not {"duckdb", "dlrunner.reporting.html.compiled"} & set(published)


def test_jobs_compile_no_template_of_their_report(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlrunner.reporting.html import compiled, page, run

    page.environment.cache_clear()
    importlib.reload(compiled)  # as in the process that jobs are forked from
    write_run(here / "runs" / "collab" / "a", 0.9)
    monkeypatch.setattr(Environment, "compile", None)
    run.write(here / "runs" / "collab" / "a")


def test_a_job_that_ran_out_of_memory_beside_others_is_repeated_alone(
    dlrun: Dlrun, ratings_csv: Path, here: Path
) -> None:
    status, out, err = dlrun(*sweep_words(here, "hungry_beside", PLUGIN), "sweep.jobs=2")
    assert status == 0, (out, err)
    assert "out of memory: MemoryError; try a smaller batch_size, or precision=bf16; retrying it alone" in out
    (results,) = (here / "runs" / "sweeps").glob("*/results.csv")
    assert list(pd.read_csv(results)["status"]) == ["done", "done"]


def test_a_job_that_runs_out_of_memory_by_itself_fails(dlrun: Dlrun, ratings_csv: Path, here: Path) -> None:
    text = PLUGIN.replace("if beside and self.seed == 1", "if self.seed == 1").replace("PATIENCE = 5", "PATIENCE = 0")
    status, out, _ = dlrun(*sweep_words(here, "hungry_alone", text))
    assert status == 1
    assert "repeated alone" not in out
    assert "[1] FAILED" in out
    assert "out of memory" in out


def test_a_job_sees_the_gpu_of_its_slot_and_no_other(
    dlrun: Dlrun, ratings_csv: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlrunner.sweeps.slots.resource_slots", lambda *_: [ResourceSlot(1, "5"), ResourceSlot(1, "7")])
    text = PLUGIN.replace("raise MemoryError", "pass").replace("PATIENCE = 5", "PATIENCE = 0")
    assert dlrun(*sweep_words(here, "hungry_slot", text), "device=cpu")[0] == 0
    seen = {Path(f"threads{seed}").read_text().splitlines()[0] for seed in (0, 1)}
    assert seen == {"1 5", "1 7"}


def test_a_job_has_the_environment_of_its_sweep_and_not_that_of_an_earlier_one(
    dlrun: Dlrun, ratings_csv: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMOVED_SINCE", "1")
    start_fork_server()
    monkeypatch.delenv("REMOVED_SINCE")
    monkeypatch.setenv("ADDED_SINCE", "1")
    text = (
        "import os\nimport pathlib\nfrom dlrunner.tasks.collab.task import Collab\nclass Hungry(Collab):\n"
        "    def metrics(self):\n        names = {'REMOVED_SINCE', 'ADDED_SINCE'} & set(os.environ)\n"
        "        pathlib.Path('names').write_text(' '.join(names))\n        return super().metrics()\n"
    )
    assert dlrun(*sweep_words(here, "with_environment", text), "seed=0")[0] == 0
    assert (here / "names").read_text() == "ADDED_SINCE"


def test_remote_jobs_get_the_variables_of_libraries_but_no_keys(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    for name in (
        "MLFLOW_TRACKING_URI",
        "WANDB_MODE",
        "HF_HOME",
        "WANDB_API_KEY",
        "HF_TOKEN",
        "MLFLOW_TRACKING_PASSWORD",
    ):
        monkeypatch.setenv(name, "1")
    found = RemoteCall(jobs(1)[0], SweepDirectory(here), ResourceSlot(1)).environment
    assert {"MLFLOW_TRACKING_URI", "WANDB_MODE", "HF_HOME", "DLRUNNER_CACHE", "DLRUNNER_OFFLINE"} <= set(found)
    assert not {"WANDB_API_KEY", "HF_TOKEN", "MLFLOW_TRACKING_PASSWORD"} & set(found)


def test_a_job_waits_for_a_run_that_another_process_does_as_long_as_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

        def sleep(self, seconds: float) -> None:
            self.now += 100

    def begin(*_: Any) -> str:
        if clock.now < 5000:
            raise BusyError("another process is training this run")
        return "finished"

    clock = Clock()
    monkeypatch.setattr("dlrunner.sweeps.job_process.time", clock)
    monkeypatch.setattr("dlrunner.sweeps.job_process.runner.run", begin)
    said: list[Any] = []
    (job,) = jobs(1)
    assert _run_when_free(job, _Messenger(said.append), math.inf, lambda path: None) == "finished"  # type: ignore[comparison-overlap]
    assert said == [("message", "waiting: another process is training this run")]
    clock.now = 0.0
    with pytest.raises(BusyError):
        _run_when_free(job, _Messenger(said.append), BUSY_TIMEOUT, lambda path: None)


def test_a_sweeps_folder_is_written_by_one_process_and_read_by_all(here: Path) -> None:
    path = here / "sweep"
    with SweepDirectory(path) as folder:
        folder.freeze([Job(0, ["seed=0"], {"a": 1}, "0a1b2c3d")], {0: JobStatus("new", "0a1b2c3d")})
        with pytest.raises(Exception, match="another process is running this sweep"), SweepDirectory(path):
            pass
        folder.write_record(0, {"status": "done", "metric": {"name": "valid/rmse", "value": 1.0}})
    assert SweepDirectory(path).job(0) == Job(0, ["seed=0"], {"a": 1}, "0a1b2c3d")
    assert json.loads((path / "jobs" / "0" / "record.json").read_text())["status"] == "done"
