"""Rossmann Store Sales as Kaggle and fast.ai published it."""

from __future__ import annotations

from dlrunner.data.core.source import Release

TABLES = ("train", "test", "store", "store_states", "state_names", "googletrend", "weather", "sample_submission")
FILES = tuple(f"{table}.csv" for table in TABLES)

RELEASES = (
    Release(
        name="rossmann",
        title="Rossmann Store Sales with store states, weather and Google trends",
        layouts=FILES,
        archives=("rossmann", "rossmann-store-sales"),
        terms="Kaggle competition data: accept the competition's rules there; the external tables are its forum's",
        suffix=".tgz",
        home="https://www.kaggle.com/c/rossmann-store-sales/data and http://files.fast.ai/part2/lesson14/rossmann.tgz",
        sha256_of_layout="f6e4597c142d7d909a13d53b68a8e85c00b9a4c7b5ff40adbb37d6829cc1f4cc",
    ),
)
