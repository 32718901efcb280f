"""Small runs of every kind of task, each trained once for all tests that ask for it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from filelock import FileLock

from dlrunner.cli import main
from tests.conftest import QUICK, flats

TEXTS = ("data.source=synthetic", "data.min_freq=1", "data.sample=200", "data.sample_valid=60", "epochs=1")
RECURRENT = ("model.embedding=16", "model.hidden=24", "model.layers=2")
LANGUAGE = ("task=imdb-lm", *TEXTS, *RECURRENT, "batch_size=16", "task.bptt=20", "task.valid_batch_size=8")
SORTING = ("task=imdb-sentiment", *TEXTS, *RECURRENT, "data.sample_test=30", "task.baseline=false")
TABLE = ("task=tabular", "data.path={flats}", "data.categorical=[city,rooms]", "data.continuous=[area]", "epochs=2")
RATINGS = ("task=collab", "data.source=synthetic", "epochs=1", "batch_size=512")
PICTURES = ("task=dogbreeds", "data.source=synthetic", "data.size=32", "data.sample=64", "data.sample_valid=16")
PICTURE_NET = ("epochs=1", "batch_size=32", "model.backbone=squeezenet1_1", "model.xtra_fc=[]", "model.dropout=0")

KINDS: dict[str, tuple[str, ...]] = {
    "ratings": RATINGS,
    "ratings by dot": (*RATINGS, "model=dot"),
    "ratings by net": (*RATINGS, "model=net", "model.genre_factors=4", "model.time=true"),
    "ratings by dot_bias": (*RATINGS, "model=dot_bias"),
    "choices": ("task=implicit", "data.source=synthetic", "epochs=1", "batch_size=512"),
    "several of ratings": (*RATINGS, "ensemble=2"),
    "numbers": (*TABLE, "data.target=price", "data.id=nr"),
    "numbers by bins": (*TABLE, "data.target=price", "model.bins=8", "model.num_nets=2"),
    "numbers by linear": (*TABLE, "data.target=price", "model=linear"),
    "numbers by mlp": (*TABLE, "data.target=price", "model=mlp"),
    "classes": (*TABLE, "data.target=size", "trainer.early_stopping=1"),
    "labels": (*TABLE, "data.target=[big,roomy]"),
    "sales": ("task=rossmann", "data.source=synthetic", "data.sample=2000", "epochs=1"),
    "pictures": (*PICTURES, *PICTURE_NET, "task.tta=1"),
    "texts": SORTING,
    "texts by gru": (*SORTING, "model.cell=gru"),
    "texts by qrnn": (*SORTING, "model.cell=qrnn"),
    "language": LANGUAGE,
    "language by adaptive softmax": (*LANGUAGE, "model.softmax=adaptive", "model.cutoffs=[20,50]"),
    "language with a pointer": (*LANGUAGE, "model.pointer=30"),
    "language by qrnn": (*LANGUAGE, "model.cell=qrnn"),
}


class SmallRuns:
    """Trains a run when it is first asked for, by whichever process of the tests; all others wait and read it.

    Nobody may change a run that lies here: a test that does copies it first.

    Args:
        folder: where the runs and their data lie; the workers of one test run share it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        with FileLock(folder / "flats.lock"):
            if not (folder / "flats.csv").exists():
                flats(300).to_csv(folder / "flats.csv", index=False)

    def __getitem__(self, kind: str) -> Path:
        place = self.folder / kind.replace(" ", "-")
        trained = place.with_suffix(".trained")
        with FileLock(place.with_suffix(".lock")):
            if not trained.exists():
                words = [word.format(flats=self.folder / "flats.csv") for word in KINDS[kind]]
                assert main([*words, *QUICK, "log.progress=none", f"runs_dir={place}"]) == 0
                trained.touch()
        return (place / "latest").resolve()


def new_flats() -> pd.DataFrame:
    """Return rows that no run has seen, among them categories and a missing number that no training row had."""
    rows = flats(40, seed=1).drop(columns=["price", "dear", "size", "big", "roomy"])
    rows.loc[3, "city"], rows.loc[5, "area"] = "Rom", None
    return rows
