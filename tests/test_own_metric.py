"""A user's own metric, of which the package knows nothing: its direction, unit and format go wherever it is read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from tests.conftest import QUICK, Dlrun

MODULE = '''
from dlrunner.metrics import MeanAbsoluteError, RootMeanSquaredError
from dlrunner.tasks.collab.task import Collab


class Closeness(MeanAbsoluteError):
    """Of each rating at most 1: the closer, the more."""

    higher_is_better, unit, format = True, "of 1", ".2%"

    def values(self, outputs, targets):
        return 1 / (1 + super().values(outputs, targets))


class Close(Collab):
    def metrics(self):
        return {"closeness": Closeness(), "rmse": RootMeanSquaredError(), "nearness": Closeness()}
'''


def test_an_own_metric_is_ranked_the_right_way_in_sweep_compare_and_report(
    dlrun: Dlrun, ratings_csv: Path, here: Path
) -> None:
    (here / "close.py").write_text(MODULE)
    words = ("task=collab", "data.path=my.csv", "plugins=[close]", "task._target_=close.Close", "epochs=1", *QUICK)
    status, out, err = dlrun("-m", *words, "optim.lr=1e-5,1e-2")
    assert status == 0, (out, err)
    (sweep,) = (here / "runs" / "sweeps").iterdir()
    results = pd.read_csv(sweep / "results.csv").set_index("optim.lr").sort_values("valid/rmse")
    best, worst = results.index
    assert results.loc[best, "valid/closeness"] > results.loc[worst, "valid/closeness"]

    ranking = out[out.index("ranking by valid/closeness") :].splitlines()
    assert float(ranking[2].split()[0]) == best
    for word in ("closeness", "nearness", "rmse"):  # the second and third judge no run by themselves
        compared = json.loads(dlrun("compare", str(sweep), "--metric", word, "--json", "-")[1])
        assert compared["groups"][0]["settings"]["optim.lr"] == best, word
        assert compared["groups"][0]["higher_is_better"] is (word != "rmse")
    status, _, err = dlrun("report", str(sweep), "--out", "sweep.html")
    assert status == 0, err
    assert "higher is better" in (here / "sweep.html").read_text()

    folder = Path(results.loc[best, "folder"])
    known = json.loads((folder / "summary.json").read_text())["metrics"]
    assert known["valid/nearness"] == {"higher_is_better": True, "unit": "of 1", "format": ".2%"}
    assert known["valid/rmse"]["higher_is_better"] is False
    shown = f"{results.loc[best, 'valid/closeness']:.2%} of 1"
    assert f"valid/closeness {shown} after epoch 1" in dlrun("show", str(folder))[1]
    assert dlrun("report", str(folder), "--out", "run.html")[0] == 0
    page = (here / "run.html").read_text()
    assert shown in page
    assert "higher is better" in page

    status, out, err = dlrun(*words, "data.test=0.2", "ensemble=2")
    assert status == 0, err
    assert re.search(r"test set .*test/closeness [\d.]+% of 1", out), out
    assert re.search(r"ensemble of 2: valid/closeness [\d.]+% of 1 \(members: [\d.]+% of 1 ± [\d.]+% of 1\)", out), out
