"""Memory of a user's table: what is counted are bytes per row and column, and the rows that are held at a time."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch

from dlrunner.data.tables import raw, text_files
from dlrunner.data.tables.files import open_table
from dlrunner.data.tables.raw import RawTable
from dlrunner.data.tables.table import Table, read_table
from dlrunner.data.tabular.dataset import TabularData
from dlrunner.data.tabular.preprocessing import TabularPreprocessor
from dlrunner.tasks.tabular.analysis import TableAnalysis
from dlrunner.tasks.tabular.baselines import TableBaselines
from dlrunner.tasks.tabular.task import Tabular

NUM_ROWS, NUM_CATEGORICAL, NUM_CONTINUOUS = 100_000, 5, 14


@pytest.fixture(scope="module")
def large_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of 100,000 rows and 20 columns."""
    random = np.random.default_rng(0)
    columns: dict[str, Any] = {}
    for number in range(NUM_CATEGORICAL):
        columns[f"c{number}"] = np.array([f"category {value}" for value in range(20)])[random.integers(0, 20, NUM_ROWS)]
    for number in range(NUM_CONTINUOUS):
        columns[f"x{number}"] = random.normal(0, 1, NUM_ROWS).round(3)
    columns["y"] = random.normal(0, 1, NUM_ROWS).round(3)
    path = tmp_path_factory.mktemp("large") / "large.csv"
    pyarrow.csv.write_csv(pa.table(columns), path)
    return path


@pytest.fixture(scope="module")
def large_task(large_csv: Path) -> Tabular:
    return Tabular(TabularData(Path(), path=str(large_csv), target="y"), 1000, 0, torch.device("cpu"))


def peak_per_cell(work: Callable[[], object]) -> float:
    """Return the peak of the memory that work takes, in bytes per row and column."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / (NUM_ROWS * (NUM_CATEGORICAL + NUM_CONTINUOUS + 1))
    finally:
        tracemalloc.stop()


def test_a_table_takes_8_bytes_per_number_and_1_per_category(large_task: Tabular) -> None:
    used = large_task.table.frame.memory_usage(index=False)
    expected = {f"c{number}": 1 for number in range(NUM_CATEGORICAL)}
    assert {name: round(count / NUM_ROWS) for name, count in used.items()} == {
        name: expected.get(str(name), 8) for name in used.index
    }


def test_a_table_is_read_without_the_readers_copy_of_all_rows(large_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    pieces, fetch = RawTable.pieces, RawTable.fetch

    def measured(self: RawTable, *expressions: str) -> Iterator[pa.RecordBatch]:
        for piece in pieces(self, *expressions):
            sizes.append(piece.num_rows * len(expressions))
            yield piece

    def only_some(self: RawTable, *expressions: str, limit: str = "") -> pa.Table:
        assert "LIMIT" in limit
        return fetch(self, *expressions, limit=limit)

    monkeypatch.setattr(RawTable, "pieces", measured)
    monkeypatch.setattr(RawTable, "fetch", only_some)
    monkeypatch.setattr(raw, "PIECE", 100_000)
    assert len(read_table(large_csv).frame) == NUM_ROWS
    assert sum(sizes) == 20 * NUM_ROWS
    assert max(sizes) <= 2 * 100_000


def test_texts_do_not_keep_the_other_columns_of_their_piece(large_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[pa.RecordBatch] = []
    pieces = RawTable.pieces

    def keeping(self: RawTable, *expressions: str) -> Iterator[pa.RecordBatch]:
        for piece in pieces(self, *expressions):
            kept.append(piece)
            yield piece

    monkeypatch.setattr(RawTable, "pieces", keeping)
    column: Any = read_table(large_csv).frame["c0"].array
    of_pieces = {buffer.address for piece in kept for buffer in piece.column(0).buffers() if buffer is not None}
    chunks = column.__arrow_array__().chunks
    assert of_pieces.isdisjoint(buffer.address for chunk in chunks for buffer in chunk.buffers() if buffer is not None)


def test_preprocessing_and_audit_of_a_table_take_no_copy_of_its_rows(large_task: Tabular) -> None:
    assert large_task.table is not None  # read before
    assert peak_per_cell(lambda: large_task.preparation) < 4
    assert peak_per_cell(large_task.split_statistics) < 4


def test_tensors_are_made_split_by_split(large_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    numbers = TabularPreprocessor.numbers

    def measured(*words: Any) -> Any:
        found = numbers(*words)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(TabularPreprocessor, "numbers", measured)
    data = TabularData(Path(), path=str(large_csv), target="y", test=0.1, sample=1000)
    task = Tabular(data, 100, 0, torch.device("cpu"))
    assert len(task.tensors("train")[1]) == 700
    assert sizes == [700, 200, 100]


def test_errors_are_analysed_without_a_copy_of_the_validation_rows(large_task: Tabular) -> None:
    outputs = torch.zeros(len(large_task.tensors("valid")[1]))
    analyses: list[TableAnalysis] = []
    assert peak_per_cell(lambda: analyses.append(TableAnalysis(large_task, [], outputs))) < 0.2
    assert len(analyses[0].groups) == 3
    assert analyses[0].column("c0").dtype == "str"


def test_names_of_categories_are_made_for_the_shown_rows_alone(
    large_task: Tabular, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = torch.zeros(len(large_task.tensors("valid")[1]))
    analysis = TableAnalysis(large_task, [], outputs)
    assert analysis.groups
    named: list[Any] = []

    def category_name(column: str, category: Any) -> str:
        named.append(category)
        return str(category)

    monkeypatch.setattr(large_task, "category_name", category_name)
    worst = analysis.worst()
    assert worst is not None
    assert len(worst) == 50
    assert len(named) == 3 * 50
    assert (worst["error"].abs().diff().dropna() <= 0).all()


def test_baselines_predict_some_rows_at_a_time(large_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    outputs = TableBaselines._outputs

    def measured(self: TableBaselines, model: Any, inputs: Any) -> torch.Tensor:
        sizes.append(inputs.shape[0])
        return outputs(self, model, inputs)

    task = Tabular(TabularData(Path(), path=str(large_csv), target="y", sample=2000), 100, 0, torch.device("cpu"))
    whole = task.baselines()
    monkeypatch.setattr(TableBaselines, "_outputs", measured)
    monkeypatch.setattr(TableBaselines, "_sample", lambda self: np.arange(1600))
    monkeypatch.setattr("dlrunner.tasks.tabular.baselines.MOST_ROWS", 150)
    found = task.baselines()
    assert sizes == [150, 150, 100] * 2
    for name, metrics in whole.items():
        assert found[name]["valid/rmse"] == metrics["valid/rmse"]


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_values_of_all_types_are_the_same_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    num_rows = 5000
    columns = {
        "text": pa.array([f"t{row % 700}" if row % 9 else None for row in range(num_rows)]),
        "whole": pa.array(range(num_rows)),
        "large": pa.array([2**53 + 1 + row for row in range(num_rows)]),
        "missing": pa.array([row if row != 4500 else None for row in range(num_rows)]),
        "number": pa.array([row / 7 for row in range(num_rows)]),
        "flag": pa.array([row % 3 == 0 for row in range(num_rows)]),
        "unsure": pa.array([row % 3 == 0 if row != 4400 else None for row in range(num_rows)]),
        "day": pd.Series(pd.date_range("2020-01-01", periods=num_rows, freq="D")).mask(np.arange(num_rows) == 4300),
    }
    path = tmp_path / f"table.{format}"
    write = pyarrow.csv.write_csv if format == "csv" else pyarrow.parquet.write_table
    write(pa.table(columns), path)
    whole = read_table(path).frame
    monkeypatch.setattr(raw, "PIECE", 8)
    in_pieces = read_table(path).frame
    pd.testing.assert_frame_equal(in_pieces, whole)
    kinds = {name: str(dtype) for name, dtype in whole.dtypes.items()}
    assert kinds["whole"] == "int64"
    assert (kinds["missing"], kinds["number"], kinds["flag"], kinds["unsure"]) == (
        "float64",
        "float64",
        "bool",
        "object",
    )
    assert (kinds["text"], kinds["day"]) == ("str", "datetime64[us]")
    assert whole["large"].tolist() == columns["large"].to_pylist() or kinds["large"] == "str"


def test_repeated_texts_are_categories_where_strings_are_not_needed(tmp_path: Path) -> None:
    frame = pd.DataFrame({"c": ["b", "a", None, "b"] * 200, "s": ["p", "q"] * 400, "id": [f"i{n}" for n in range(800)]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    table = _read_with_strings(tmp_path / "t.csv", ["s"])
    assert isinstance(table.frame["c"].dtype, pd.CategoricalDtype)
    assert {name: str(table.frame[name].dtype) for name in ("s", "id")} == {"s": "str", "id": "str"}
    pd.testing.assert_series_equal(table.frame["c"].astype("str"), frame["c"])
    assert table.frame["c"].cat.categories.tolist() == ["a", "b"], "in their own order: the column sorts as texts do"


def _read_with_strings(path: Path, strings: list[str]) -> Table:
    from dlrunner.data.tables.source import TableFile
    from dlrunner.data.tables.table import Reading

    return TableFile(str(path), None, Reading()).read(strings=strings)


def test_a_large_file_is_not_read_as_one_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "LONGEST_LINE", 10)  # bytes from which on a file is large
    usual, long = tmp_path / "usual.csv", tmp_path / "long.csv"
    usual.write_text("a,b\n" + "1,x\n" * 100)
    long.write_text("a,b\n" + f"1,{'x' * 3 * 2**20}\n" * 3)
    with open_table(usual) as table:
        assert f"max_line_size={text_files.USUAL_LINE}," in table.select
    assert read_table(long).frame["b"].str.len().tolist() == [3 * 2**20] * 3
