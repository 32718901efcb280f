"""Small data of every kind, and the words that train the smallest models on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from dlrunner.data.rossmann.synthetic import write_synthetic_rossmann
from tests.conftest import ratings_table

WITHOUT_PAGES = ("log.plots=false", "log.report=false", "log.progress=none")
RECURRENT = (
    *("data.tokenizer=whitespace", "data.min_freq=1", "model.embedding=8", "model.hidden=12", "model.layers=2"),
    *("batch_size=8", "trainer.num_threads=1"),
)
PICTURES = ("task=image", "data.path=pictures", "data.size=32", "model.backbone=squeezenet1_1", "model.xtra_fc=[]")
TRAINED = {
    "ratings": ("task=collab", "data.path=ratings.csv", "model=net", "batch_size=16"),
    "table": (
        *("task=tabular", "data.path=table.csv", "data.target=price", "data.id=nr", "data.categorical=[city]"),
        *("data.continuous=[area]", "batch_size=16", "model.hidden=[8]", "model.dropouts=[0.1]"),
    ),
    "sales": (
        *("task=rossmann", "data.path=sales", "data.sample=400", "batch_size=64", "model.hidden=[8]"),
        *("model.dropouts=[0.1]", "trainer.num_threads=1"),
    ),
    "language": (
        *("task=lm", "data.path=texts.txt", *RECURRENT, "task.bptt=10", "task.valid_batch_size=4", "task.ngram=2"),
    ),
    "texts": (
        "task=text",
        "model=text_classifier",
        "data.path=texts.csv",
        "data.target=label",
        *RECURRENT,
        "task.baseline=false",
    ),
    "pictures": (*PICTURES, "model.dropout=0", "batch_size=8", "trainer.num_threads=1"),
    "masks": (
        *("task=segmentation", "data.path=masks", "data.size=32", "model.backbone=squeezenet1_1"),
        *("batch_size=4", "trainer.num_threads=1"),
    ),
}
"""Words that train for 0.3 to 1.5 seconds, for every task; they need `epochs`."""

FILES = {
    "ratings": ("ratings.csv",),
    "table": ("table.csv",),
    "sales": ("sales",),
    "language": ("texts.txt",),
    "texts": ("texts.csv",),
    "pictures": ("pictures",),
    "masks": ("masks",),
    "many ratings": ("many.csv",),
}
"""The data that each kind reads."""


def write_samples(folder: Path) -> None:
    """Write all data into a folder."""
    rng = np.random.default_rng(0)
    ratings_table(12, 20, 150).to_csv(folder / "ratings.csv", index=False)
    rows = 120
    table = pd.DataFrame({"nr": np.arange(rows), "city": rng.choice(list("abc"), rows), "area": rng.normal(size=rows)})
    table.assign(price=table["area"] + rng.normal(size=rows)).to_csv(folder / "table.csv", index=False)
    words = np.array([f"w{number}" for number in range(30)])
    lines = [" ".join(rng.choice(words, 12)) for _ in range(60)]
    (folder / "texts.txt").write_text("\n".join(lines) + "\n")
    pd.DataFrame({"text": lines, "label": rng.choice(["x", "y"], 60)}).to_csv(folder / "texts.csv", index=False)
    for name in "ab":
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{number}.png")
    for name in ("images", "masks"):
        (folder / "masks" / name).mkdir(parents=True)
    for number in range(12):
        pixels = rng.integers(0, 100, (32, 32, 3), dtype=np.uint8)
        mask = np.zeros((32, 32), np.uint8)
        mask[number : number + 16, 8:24] = 1
        Image.fromarray(pixels + 100 * mask[..., None]).save(folder / "masks" / "images" / f"{number}.png")
        Image.fromarray(mask).save(folder / "masks" / "masks" / f"{number}.png")
    many_ratings(rng).to_csv(folder / "many.csv", index=False)
    made, _ = write_synthetic_rossmann(folder / "made", num_stores=4)
    made.rename(folder / "sales")
    (folder / "made").rmdir()


def many_ratings(rng: np.random.Generator) -> pd.DataFrame:
    """Return ratings whose number lets a run choose between weight decays, and whose factors explain much."""
    users, items = rng.normal(size=(60, 2)), rng.normal(size=(50, 2))
    user, item = np.divmod(rng.choice(3_000, 2_600, replace=False), 50)
    rating = np.clip(np.round(3 + (users[user] * items[item]).sum(1)), 1, 5).astype(int)
    return pd.DataFrame({"user": user, "item": item, "rating": rating})
