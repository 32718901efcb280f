"""The answers of a run in files, and for the next program."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import pytest

from dlrunner import load
from dlrunner.cli.predictor_output import Output
from dlrunner.errors import ConfigError
from tests.conftest import Dlrun
from tests.small_runs import SmallRuns, new_flats

KINDS = {"numbers": "new.csv", "classes": "new.csv", "ratings": "pairs.csv", "choices": "pairs.csv", "texts": "new.txt"}
READERS: Mapping[str, Callable[[str], pd.DataFrame]] = {
    "csv": lambda file: pd.read_csv(file),
    "tsv": lambda file: pd.read_csv(file, sep="\t"),
    "json": lambda file: pd.DataFrame(json.loads(Path(file).read_text())),
    "jsonl": lambda file: pd.DataFrame([json.loads(line) for line in Path(file).read_text().splitlines()]),
    "parquet": lambda file: pd.read_parquet(file),
    "xlsx": lambda file: pd.read_excel(file, engine="openpyxl"),
}


@pytest.fixture
def inputs(here: Path) -> Path:
    rows = new_flats().assign(nr=range(100, 140))
    rows.to_csv("new.csv", index=False)
    pd.DataFrame({"user": [1, 2, 9999, 3], "item": [5, 31, 31, None]}).to_csv("pairs.csv", index=False)
    Path("new.txt").write_text("kivi fidodu\nzzz\n\nlivedu\n")
    return here


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Compare tables by what a CSV file holds of them."""
    one, other = (pd.read_csv(io.StringIO(each.to_csv(index=False))) for each in (found, expected))
    pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_holds_the_same_digits(kind: str, runs: SmallRuns, dlrun: Dlrun, inputs: Path) -> None:
    run, tables = str(runs[kind]), []
    for suffix, reader in READERS.items():
        status, _, _ = dlrun("predict", run, KINDS[kind], "--out", f"answer.{suffix}")
        assert status == int(KINDS[kind] == "pairs.csv")
        tables.append(reader(f"answer.{suffix}"))
    for each in tables[1:]:
        same(each, tables[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("option", ["--json", "--jsonl", "--out -"])
def test_standard_output_holds_the_result_and_nothing_else(
    kind: str, option: str, runs: SmallRuns, dlrun: Dlrun, inputs: Path
) -> None:
    run = str(runs[kind])
    dlrun("predict", run, KINDS[kind], "--out", "answer.csv")
    status, out, err = dlrun("predict", run, KINDS[kind], *option.split())
    Path("out").write_text(out)
    same(READERS[option.removeprefix("--").replace("out -", "csv")]("out"), pd.read_csv("answer.csv"))
    assert status == int(KINDS[kind] == "pairs.csv")  # a row without a prediction
    assert all(line.startswith("note: ") for line in err.splitlines()[1:])  # the first one names the run
    assert ("cannot be read" in err) == bool(status)


def test_rows_from_standard_input(runs: SmallRuns, dlrun: Dlrun, inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, expected, _ = dlrun("predict", str(runs["numbers"]), "new.csv", "--json")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path("new.csv").read_bytes())))
    status, out, _ = dlrun("predict", str(runs["numbers"]), "-", "--json")
    assert (status, json.loads(out)) == (0, json.loads(expected))


def test_the_terminal_shows_the_digits_of_the_file(runs: SmallRuns, dlrun: Dlrun, inputs: Path) -> None:
    _, out, _ = dlrun("predict", str(runs["numbers"]), "new.csv", "--out", "answer.json")
    for row in json.loads(Path("answer.json").read_text())[:20]:
        assert str(row["price"]) in out


def test_formulas_are_quoted_in_a_workbook(runs: SmallRuns, dlrun: Dlrun, inputs: Path) -> None:
    new_flats().assign(nr="=1+2").to_csv("new.csv", index=False)
    _, out, _ = dlrun("predict", str(runs["numbers"]), "new.csv", "--out", "answer.xlsx")
    assert "escaped" in out
    assert set(READERS["xlsx"]("answer.xlsx")["nr"]) == {"'=1+2"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "answer.parqet"), "ends in none of .csv"),
        (("--out", "-", "--json"), "leave out --out -"),
        (("--jsonl", "--json"), "not allowed with"),
    ],
)
def test_an_output_that_cannot_be_is_refused(
    words: tuple[str, ...], said: str, runs: SmallRuns, dlrun: Dlrun, inputs: Path
) -> None:
    status, out, err = dlrun("predict", str(runs["numbers"]), "new.csv", *words)
    assert (status, out) == (2, "")
    assert said in err


def test_python_returns_the_same_digits(runs: SmallRuns, dlrun: Dlrun, inputs: Path) -> None:
    dlrun("predict", str(runs["classes"]), "new.csv", "--out", "answer.csv")
    same(load(runs["classes"]).predict(pd.read_csv("new.csv")), pd.read_csv("answer.csv"))


def test_the_columns_of_the_input_stand_beside_the_prediction(runs: SmallRuns, dlrun: Dlrun, inputs: Path) -> None:
    run, given = str(runs["classes"]), list(pd.read_csv("new.csv").columns)
    of_classes = ["size", "p(large)", "p(middle)", "p(small)"]
    beside = {(): ["row", *given], ("--only",): [], ("--only", "city,row"): ["city", "row"], ("--only", "nr"): ["nr"]}
    for words, expected in beside.items():
        assert dlrun("predict", run, "new.csv", *words, "--out", "answer.csv")[0] == 0
        assert pd.read_csv("answer.csv").columns.tolist() == expected + of_classes
    rows = pd.read_csv("new.csv").assign(size="unknown", nr="")
    rows.to_csv("labelled.csv", index=False)
    assert dlrun("predict", run, "labelled.csv", "--out", "answer.csv")[0] == 0
    answer = pd.read_csv("answer.csv")
    assert answer["row"].tolist() == list(range(2, 42))
    assert set(answer["size"]) == {"unknown"}
    assert answer["prediction"].isin(["large", "middle", "small"]).all()


def test_a_row_that_cannot_be_read_has_a_reason_in_every_output(runs: SmallRuns, dlrun: Dlrun, inputs: Path) -> None:
    rows = new_flats().astype(str)
    rows.loc[7, "area"] = "wide"
    rows.to_csv("new.csv", index=False)
    status, out, err = dlrun("predict", str(runs["numbers by mlp"]), "new.csv", "--only", "--json")
    found = json.loads(out)
    assert status == 1
    assert [row for row, each in enumerate(found) if each["price"] is None] == [7]
    assert "wide" in found[7]["problem"]
    assert found[6]["problem"] is None
    assert "1 of 40 rows cannot be read" in err


def test_python_takes_rows_in_every_shape(runs: SmallRuns, inputs: Path) -> None:
    predictor, table = load(runs["numbers"]), pd.read_csv("new.csv")
    expected = predictor.predict(table)
    rows = table.to_dict("records")
    for given in (rows, table.to_dict("list"), "new.csv", Path("new.csv")):
        pd.testing.assert_series_equal(predictor.predict(given)["price"], expected["price"])
    assert predictor.predict(rows[9])["price"].item() == expected["price"][9]
    ratings = load(runs["ratings"])
    known = ratings.recommend(1, top=1)["item"].item()
    assert len(ratings.recommend(ratings=[{"item": known, "rating": 4.0}], top=3)) == 3
    assert len(ratings.predict({"user": 1, "item": 31}, only=[]).columns) == 2


@pytest.mark.parametrize("kind", ["texts", "language"])
def test_the_columns_of_a_table_of_texts_stand_beside_the_prediction(
    kind: str, runs: SmallRuns, dlrun: Dlrun, inputs: Path
) -> None:
    Path("reviews.csv").write_text('id,review,score\n007,"kivi fidodu",1\n008,zzz,2\n')
    run, words = str(runs[kind]), ("reviews.csv", "--column", "review")
    _, out, _ = dlrun("predict", run, *words, "--json")
    first, second = json.loads(out)
    assert {name: first[name] for name in ("row", "id", "review", "score")} == {
        "row": 2,
        "id": "007",
        "review": "kivi fidodu",
        "score": 1,
    }
    _, out, _ = dlrun("predict", run, *words, "--only", "id", "--jsonl")
    left_out = ("row", "review", "score")
    assert json.loads(out.splitlines()[1]) == {name: value for name, value in second.items() if name not in left_out}
    table = pd.read_csv("reviews.csv", dtype={"id": str})
    expected = load(runs[kind]).predict(table, column="review", only=["row"])
    assert [first["row"], second["row"]] == expected["row"].tolist()
    assert expected.iloc[:, -1].tolist() == [first[expected.columns[-1]], second[expected.columns[-1]]]
    with pytest.raises(ConfigError, match="has no column 'revew'; did you mean review"):
        load(runs[kind]).predict(table, column="revew")


def test_a_wide_table_is_printed_with_the_columns_that_fit_and_the_prediction(
    runs: SmallRuns, dlrun: Dlrun, inputs: Path
) -> None:
    rows = pd.read_csv("new.csv").assign(**{f"measurement_{number}": number for number in range(60)})
    rows.to_csv("wide.csv", index=False)
    _, out, _ = dlrun("predict", str(runs["classes"]), "wide.csv")
    header = next(line for line in out.splitlines() if "p(large)" in line)
    assert header.split()[0] == "row"
    assert "measurement_59" not in header
    assert "more columns; --out FILE writes all" in out
    dlrun("predict", str(runs["classes"]), "wide.csv", "--out", "all.csv")
    assert "measurement_59" in pd.read_csv("all.csv")


def test_formats_with_types_hold_the_numbers_of_the_input_as_numbers(
    runs: SmallRuns, dlrun: Dlrun, inputs: Path
) -> None:
    rows = pd.read_csv("new.csv", dtype=str)
    rows.loc[1, "area"] = None
    rows.assign(room="007", area=rows["area"] + "0").to_csv("new.csv", index=False)
    run = str(runs["numbers"])
    _, out, _ = dlrun("predict", run, "new.csv", "--json")
    first, second = json.loads(out)[:2]
    assert first["area"] == float(rows["area"][0])
    assert isinstance(first["rooms"], int)
    assert (second["area"], first["room"], first["nr"]) == (None, "007", "100"), "what is no number to the run"
    for suffix in ("parquet", "xlsx", "jsonl"):
        dlrun("predict", run, "new.csv", "--out", f"answer.{suffix}")
        found = READERS[suffix](f"answer.{suffix}")
        assert found["area"].dtype == "float64"
        assert found["rooms"].dtype == "int64"
    dlrun("predict", run, "new.csv", "--out", "answer.csv")
    assert pd.read_csv("answer.csv", dtype=str)["area"][0] == f"{rows['area'][0]}0", "text has its own characters"
    Path("new.csv").write_text(Path("new.csv").read_text().replace(f"{rows['area'][3]}0", "many"))
    _, out, _ = dlrun("predict", run, "new.csv", "--json")
    assert json.loads(out)[0]["area"] == f"{rows['area'][0]}0", "a column with another value stays as it is"


def test_notes_wrap_at_words_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    table = pd.DataFrame({"y": [0.5]})
    table.attrs["note"] = "rooms: 1 row(s) with categories not seen in training\narea: 2 values"
    for is_terminal, lines in (
        (True, ["rooms: 1 row(s) with categories not seen", "  in training", "area: 2 values"]),
        (False, table.attrs["note"].splitlines()),
    ):
        monkeypatch.setattr("sys.stdout.isatty", lambda answer=is_terminal: answer, raising=False)
        Output().put(table)
        shown = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        assert shown[: len(lines)] == lines


def test_control_characters_of_a_text_arrive_at_the_next_program(
    runs: SmallRuns, dlrun: Dlrun, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "kivi\x85fidodu \x92 \u2028livedu"
    pd.DataFrame({"text": [text], "nr": ["a\r\nb"]}).to_csv("new.csv", index=False)
    run = str(runs["texts"])
    for option in ("--json", "--jsonl"):
        (row,) = [json.loads(line) for line in dlrun("predict", run, "new.csv", option)[1].strip("[]\n").splitlines()]
        assert (row["text"], row["nr"]) == (text, "a\r\nb")
    dlrun("predict", run, "new.csv", "--out", "out.csv")
    assert dlrun("predict", run, "new.csv", "--out", "-")[1] == Path("out.csv").read_bytes().decode()
