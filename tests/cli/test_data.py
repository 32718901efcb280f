"""`dlrun data`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import dlrunner
from dlrunner.errors import ConfigError
from tests.conftest import Dlrun


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_describe_shows_how_each_column_is_read_and_saves_it(here: Path, dlrun: Dlrun) -> None:
    rows = [f"{i % 28 + 1:02d}.{i % 12 + 1:02d}.2020;0{i % 10}123;{i},{i % 100:02d} €;" for i in range(60)]
    (here / "shop.csv").write_text("Tag;PLZ;Preis;leer\n" + "\n".join(rows) + "\n")
    status, out, _ = dlrun("data", "describe", "shop.csv", "--save", "schema.yaml")
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "date, %d.%m.%Y" in out
    assert "number, decimal comma, unit €" in out
    assert "01123" in out or "00123" in out
    columns = {each["name"]: each for each in yaml.safe_load((here / "schema.yaml").read_text())["columns"]}
    assert columns["Tag"] == {"name": "Tag", "type": "date", "format": "%d.%m.%Y"}
    assert columns["PLZ"] == {"name": "PLZ", "type": "text"}
    assert columns["Preis"] == {"name": "Preis", "type": "number", "decimal": ",", "after": "€"}


def test_what_is_in_doubt_is_marked_and_an_option_settles_it(here: Path, dlrun: Dlrun) -> None:
    (here / "t.csv").write_text("a,b\n1.234,x\n812,y\n")
    status, out, _ = dlrun("data", "describe", "t.csv")
    assert status == 0
    assert "a (!)" in out
    assert "warning: a: 1.234 may be 1234 or 1.234: set data.decimal=" in out
    _, out, _ = dlrun("data", "describe", "t.csv", "--decimal", ",")
    assert "(!)" not in out
    assert "thousands '.'" in out


def test_times_of_day_that_are_all_read_have_a_note_and_no_warning(here: Path, dlrun: Dlrun) -> None:
    (here / "t.csv").write_text("t,b\n12:30,x\n8:05,y\n")
    _, out, err = dlrun("data", "describe", "t.csv")
    assert "note: t: times of day are read as minutes since midnight" in " ".join(out.split())
    assert "(!)" not in out
    assert "warning" not in out + err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["describe"], "FILE: is missing"),
        (["describe", "t.csv", "--query", "select 1"], "exclude each other"),
        (["get", "ml-100k", "--query", "select 1"], "option of `dlrun data describe"),
        (["describe", "--query", "drop table t"], "data.query: must be one SELECT"),
        (["describe", "nothing.csv"], "there is no file nothing.csv"),
        (["get", "ml-100k", "--decimal", ","], "option of `dlrun data describe"),
        (["describe", "notes.doc"], "the name of a table ends in"),
    ],
)
def test_a_wrong_request_is_refused(words: list[str], said: str, here: Path, dlrun: Dlrun) -> None:
    (here / "notes.doc").write_text("a,b\n")
    status, _, err = dlrun("data", *words)
    assert (status, said in err) == (2, True), err


def test_a_file_with_a_similar_name_is_suggested(here: Path, dlrun: Dlrun) -> None:
    (here / "sub").mkdir()
    (here / "sub" / "flats.csv").write_text("a,b\n1,2\n")
    for words in (["data", "describe", "sub/flat.csv"], ["task=tabular", "data.path=sub/flat.csv", "data.target=b"]):
        assert dlrun(*words)[2].endswith("there is no file sub/flat.csv; did you mean sub/flats.csv?\n")
    for task in ("image", "segmentation", "text", "lm"):
        _, _, err = dlrun(f"task={task}", "data.path=subs")
        assert err == "dlrun: data.path: there is no file or folder subs; did you mean sub?\n"
    _, _, err = dlrun("task=tabular", "data.path=sub/flats.csv")
    assert "which column is the target? dlrun data describe sub/flats.csv lists them" in err


def test_sample_data_in_the_folder_of_the_environment_is_found_by_its_name_in_the_documentation(
    here: Path, dlrun: Dlrun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLRUNNER_DATA", str(here / "all"))
    assert dlrun("data", "get", "sample-sales")[0] == 0
    file = "sample-sales/sales.csv"
    for words in (
        ["data", "describe", f"data/{file}"],
        ["task=tabular", f"data.path=data/{file}", "data.target=sales"],
    ):
        assert f"there is no file data/{file}; it is at {here}/all/{file} (DLRUNNER_DATA)" in dlrun(*words)[2]


def test_one_bad_row_does_not_refuse_the_others(here: Path, dlrun: Dlrun) -> None:
    (here / "t.csv").write_text("x,code,y\n" + "".join(f"{i * 0.5},0{i % 7},{i * 2 + i % 3}\n" for i in range(80)))
    status, out, err = dlrun("task=tabular", "data.path=t.csv", "data.target=y", "epochs=1", "log.plots=false")
    assert status == 0, err
    assert "code" in out
    (here / "new.csv").write_text("code,x\n01,1.5\n02,many\n03,2.5\n")
    status, out, err = dlrun("predict", "runs/latest", "new.csv", "--out", "answer.csv")
    assert status == 1, err
    rows = (here / "answer.csv").read_text().splitlines()
    assert rows[0] == "row,code,x,y,problem"
    assert rows[2] == "3,02,many,,\"x is 'many', which is not a number\""
    assert all(row.split(",")[3] and row.endswith(",") for row in (rows[1], rows[3]))


def test_new_rows_with_infinite_numbers_have_no_prediction(here: Path, dlrun: Dlrun) -> None:
    (here / "t.csv").write_text("x,code,y\n" + "".join(f"{i * 0.5},0{i % 7},{i * 2 + i % 3}\n" for i in range(80)))
    status, _, err = dlrun("task=tabular", "data.path=t.csv", "data.target=y", "epochs=1", "log.plots=false")
    assert status == 0, err
    (here / "new.csv").write_text("code,x\n01,1.5\n02,inf\n03,1e400\n")
    status, _, err = dlrun("predict", "runs/latest", "new.csv", "--out", "answer.csv")
    assert status == 1, err
    rows = (here / "answer.csv").read_text().splitlines()
    assert rows[2:] == [
        f"{row},{x},,\"x is '{x}', which is not a finite number\"" for row, x in (("3,02", "inf"), ("4,03", "1e400"))
    ]
    frame = dlrunner.load("runs/latest").predict(pd.DataFrame({"code": ["01", "02"], "x": [1.5, np.inf]}))
    assert frame["y"].isna().tolist() == [False, True]


def test_two_columns_of_one_name_in_new_rows_are_told_or_refused(here: Path, dlrun: Dlrun) -> None:
    (here / "t.csv").write_text("x,code,y\n" + "".join(f"{i * 0.5},0{i % 7},{i * 2 + i % 3}\n" for i in range(80)))
    assert dlrun("task=tabular", "data.path=t.csv", "data.target=y", "epochs=1", "log.plots=false")[0] == 0
    (here / "new.csv").write_text("code,x,x\n01,1.5,7\n02,2,7\n")
    status, out, err = dlrun("predict", "runs/latest", "new.csv")
    assert status == 0, err
    assert "2 columns are named x: the second one is called 'x.1'" in " ".join(out.split())
    frame = pd.DataFrame([["01", 1.5, 7.0]], columns=["code", "x", "x"])
    with pytest.raises(ConfigError, match="two columns named 'x'"):
        dlrunner.load("runs/latest").predict(frame)


def test_new_rows_are_read_with_the_separator_and_encoding_of_training_where_they_need_it(
    here: Path, dlrun: Dlrun
) -> None:
    lines = "".join(f"{i * 0.5}~Größe{i % 7}~{i * 2 + i % 3}\n" for i in range(80))
    (here / "t.txt").write_text("x~code~y\n" + lines, encoding="cp1252")
    settings = ("data.separator='~'", "data.encoding=cp1252", "data.target=y", "epochs=1", "log.plots=false")
    status, _, err = dlrun("task=tabular", "data.path=t.txt", *settings)
    assert status == 0, err
    (here / "same.txt").write_text("x~code\n1.5~Größe1\n", encoding="cp1252")
    (here / "other.csv").write_text("x,code\n1.5,Größe1\n", encoding="utf-8")
    for name in ("same.txt", "other.csv"):
        status, out, err = dlrun("predict", "runs/latest", name, "--only", "--out", f"{name}.out.csv")
        assert status == 0, err
        assert "not seen in training" not in out
    assert (here / "same.txt.out.csv").read_text() == (here / "other.csv.out.csv").read_text()


def test_a_query_is_described_and_its_schema_saved(here: Path, dlrun: Dlrun) -> None:
    (here / "t.csv").write_text("id;price\n007;1.234,50\n7;2,25\n")
    query = "select id, price * 2 as twice from 't.csv'"
    status, out, _ = dlrun("data", "describe", "--query", query, "--save", "s.yaml")
    assert status == 0
    assert "data.query: 2 rows, 2 columns" in out
    columns = yaml.safe_load((here / "s.yaml").read_text())["columns"]
    assert columns == [{"name": "id", "type": "text"}, {"name": "twice", "type": "number"}]


def test_the_sample_shop_is_generated_the_same_each_time(
    here: Path, dlrun: Dlrun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DLRUNNER_DATA", raising=False)
    _, out, _ = dlrun("data")
    assert "not found; dlrun data get sample-sales" in out
    assert dlrun("data", "get", "sample-sales")[:2] == (0, "sample-sales: data/sample-sales\n")
    sales, truth = (pd.read_csv(here / "data" / "sample-sales" / name) for name in ("sales.csv", "truth.csv"))
    assert len(sales) == 8 * 1095
    before = (here / "data" / "sample-sales" / "sales.csv").read_bytes()
    (here / "data" / "sample-sales").rename(here / "first")
    assert dlrun("data", "get", "sample-sales")[0] == 0
    assert (here / "data" / "sample-sales" / "sales.csv").read_bytes() == before
    error = np.log(truth["sales"] / truth["expected"])
    assert 0.12 < error.std() < 0.14
    (here / "data" / "sample-sales" / "next.csv").unlink()
    status, _, err = dlrun("data", "get", "sample-sales")
    assert status == 1
    assert "exists and is not sample-sales" in err
