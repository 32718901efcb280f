"""Files and queries that are broken, malicious or huge: a sentence each, no hang, nothing written."""

from __future__ import annotations

import gzip
import os
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dlrunner.data.tables.table import Reading, dump_schema, read_table
from dlrunner.errors import ConfigError, DataError


def refusal(path: Path) -> str:
    """Return the sentence that a file is refused with."""
    with pytest.raises((ConfigError, DataError)) as refused:
        read_table(path)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500
    return str(refused.value)


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlrunner.data.core.unpacking.ROOM", 2**20)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 10**7))
    assert "over" in refusal(tmp_path / "t.csv.gz")
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.csv", b"a,b\n" + b"1,2\n" * 10**7)
    assert "over" in refusal(tmp_path / "t.csv.zip")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    content = gzip.compress(os.urandom(5000))
    (tmp_path / "cut.csv.gz").write_bytes(content[:2000])
    for name in ("a.parquet", "a.xlsx", "a.sqlite", "a.zip", "a.csv.zst"):
        (tmp_path / name).write_bytes(b"not this at all, but long enough to be looked at")
    for path in sorted(tmp_path.iterdir()):
        assert path.name in refusal(path)


def test_a_quotation_mark_that_is_never_closed_ends(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n1,"' + "x,y\n" * 10**6)
    assert "quotation mark" in refusal(tmp_path / "t.csv")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "folder.csv").mkdir()
    for path in (tmp_path / "pipe.csv", tmp_path / "folder.csv", Path("/dev/zero"), tmp_path / "none.csv"):
        assert path.name in refusal(path)


def test_a_cell_of_5_mb_is_read(tmp_path: Path) -> None:
    long = "wörd, " * 10**6
    pd.DataFrame({"text": [long, "short"], "n": [1, 2]}).to_csv(tmp_path / "t.csv", index=False)
    assert read_table(tmp_path / "t.csv", text=["text"]).frame["text"].tolist() == [long, "short"]


@pytest.mark.parametrize("num_empty", [2, 7])
def test_the_first_columns_may_be_empty(num_empty: int, tmp_path: Path) -> None:
    names = [*(f"empty{i}" for i in range(num_empty)), "y"]
    rows = [",".join(names), *(f"{',' * num_empty}{i}" for i in range(3))]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    read = read_table(tmp_path / "t.csv").frame
    assert read["y"].tolist() == [0, 1, 2]
    assert read[names[:-1]].isna().all(axis=None)


def test_dates_that_are_all_dashes_are_missing(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("d;y\n-;1\n;2\n-;3\n")
    table = read_table(tmp_path / "t.csv", dates=["d"])
    assert (table.schema["d"].type, table.schema.found["d"].num_missing) == ("date", 3)
    assert table.frame["d"].isna().all()


def test_many_columns_are_read(tmp_path: Path) -> None:
    count = 1000  # 100 in each query
    wide = pd.DataFrame(np.arange(3 * count).reshape(3, count), columns=[f"c{i}" for i in range(count)])
    wide.to_csv(tmp_path / "wide.csv", index=False)
    table = read_table(tmp_path / "wide.csv")
    pd.testing.assert_frame_equal(table.frame, wide)
    (tmp_path / "s.yaml").write_text(dump_schema(table.schema))
    changed = wide.astype(object)
    changed.iloc[1, count - 1] = "x"
    changed.to_csv(tmp_path / "wide.csv", index=False)
    (bad,) = read_table(tmp_path / "wide.csv", Reading(schema=str(tmp_path / "s.yaml"))).bad
    assert (bad.row, bad.column) == (1, f"c{count - 1}")


@pytest.mark.parametrize(
    "query",
    [
        "copy (select 1) to 'out.csv'",
        "attach 'other.db'",
        "install httpfs",
        "set threads = 1",
        "select 1; select 2",
        "pragma version",
        "create table t as select 1",
        "select * from 'http://127.0.0.1:9/t.csv'",
        "selec 1",
        "",
    ],
)
def test_a_query_only_reads(query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises((ConfigError, DataError), match=r"data\.query"):
        read_table(None, query=query)
    assert not list((tmp_path / "here").iterdir())
