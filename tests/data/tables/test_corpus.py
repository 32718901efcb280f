"""Files as shops, labs, offices and tools export them, each with its right values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dlrunner.data.tables.table import Reading, read_table
from dlrunner.errors import ConfigError, DataError

CORPUS = Path(__file__).parent / "corpus"
EXPECTED: dict[str, Any] = yaml.safe_load(CORPUS.with_suffix(".yaml").read_text("utf-8"))


def test_each_file_has_its_right_values() -> None:
    assert sorted(EXPECTED) == sorted(path.name for path in CORPUS.iterdir())
    assert len(EXPECTED) >= 60


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_file_is_read_right_or_refused(name: str) -> None:
    expected = EXPECTED[name]
    if "refused" in expected:
        with pytest.raises((ConfigError, DataError)) as refusal:
            read_table(CORPUS / name)
        assert expected["refused"] in str(refusal.value)
        assert name in str(refusal.value)
        assert "\n" not in str(refusal.value)
        return
    table = read_table(CORPUS / name)
    assert len(table.frame) == expected["rows"]
    assert expected.get("note", "") in " ".join(table.notes)
    assert table.schema.names == list(expected["columns"])
    for column in table.schema.columns:
        wanted, found = expected["columns"][column.name], table.schema.found[column.name]
        assert column.described() == wanted["read"], column.name
        values = [str(value).removesuffix(" 00:00:00") for value in table.frame[column.name].tolist()[:4]]
        assert values == wanted["values"], column.name
        assert found.num_missing == wanted.get("missing", 0), column.name
        assert found.bad_example == wanted.get("bad", ""), column.name
        assert found.ambiguous == wanted.get("ambiguous", False), column.name
        assert (found.doubt is not None and not found.ambiguous) == wanted.get("settled", False), column.name
        assert (found.note is not None) == wanted.get("noted", False), column.name


def test_ids_keep_their_characters() -> None:
    table = read_table(CORPUS / "ids_leading_zeros.csv", text=["user", "item"])
    assert table.frame["user"].tolist() == ["0108775015", "108775015", "1e01", "10"]
    assert table.frame["item"].nunique() == 4
    table = read_table(CORPUS / "ids_blank_ends.csv", text=["user", "item"])
    assert table.frame["user"].nunique() == 2


def test_the_encoding_of_windows_is_a_setting() -> None:
    table = read_table(CORPUS / "bank_german_cp1252.csv", Reading(encoding="cp1252"))
    assert "ü" in "".join(table.frame.astype(str).to_numpy().ravel().tolist() + table.schema.names)


def test_one_letter_after_many_numbers_is_a_category_of_its_own(tmp_path: Path) -> None:
    codes = [str(i % 5 + 1) if i % 50 else "" for i in range(16_500)]
    codes[16_400] = "X"
    (tmp_path / "t.csv").write_text("code,n\n" + "".join(f"{code},{i}\n" for i, code in enumerate(codes)))
    table = read_table(tmp_path / "t.csv")
    assert sorted(table.frame["code"].dropna().unique()) == ["1", "2", "3", "4", "5", "X"]
    assert table.schema.found["code"].num_missing == codes.count("")


def test_a_user_with_a_name_after_many_with_numbers_changes_no_other(tmp_path: Path) -> None:
    users = [str(i % 1500 + 1) for i in range(300_000)]
    users[-1] = "guest"
    (tmp_path / "t.csv").write_text("user,n\n" + "".join(f"{user},{i}\n" for i, user in enumerate(users)))
    assert read_table(tmp_path / "t.csv", text=["user"]).frame["user"].nunique() == 1501
    assert read_table(tmp_path / "t.csv").schema["user"].type == "number", "as an input it is one with an error"
    with pytest.raises(DataError, match="row 300001: user is 'guest'"):
        read_table(tmp_path / "t.csv").checked(["user"], skip_bad=False)


def test_numbers_are_dates_where_the_user_says_so() -> None:
    table = read_table(CORPUS / "dates_epoch.csv", dates=["s", "ms"])
    assert table.frame["s"].astype(str).tolist()[:2] == ["2010-01-01 00:00:00", "2010-01-01 00:01:01"]
    assert table.frame["ms"].dt.year.tolist() == [2010, 2010, 2001]
    table = read_table(CORPUS / "sap_dats.csv", dates=["BUDAT"])
    assert table.frame["BUDAT"].astype(str).tolist() == ["2023-01-31", "2023-02-28", "2023-03-01"]
    table = read_table(CORPUS / "dates_serial.csv", dates=["excel", "stamp"])
    assert table.schema["excel"].described() == "date, days since 1900 (Excel)"
    assert table.frame["excel"].astype(str).tolist() == ["2024-01-02 00:00:00", "2024-02-29 12:00:00"]
    assert table.frame["stamp"].astype(str).tolist() == ["2024-01-05 10:22:33", "2024-02-05 23:59:59"]
    with pytest.raises(DataError, match="row 2: time is '12:30', which is not a date"):
        read_table(CORPUS / "dates_clock_only.csv", dates=["time"])


def test_a_date_that_does_not_fit_the_others_is_named_with_its_row() -> None:
    with pytest.raises(DataError, match=r"row 30: when is '2023-01-29'.*%d/%m/%Y"):
        read_table(CORPUS / "dates_one_misfit.csv", dates=["when"])


def test_settings_settle_what_is_ambiguous() -> None:
    comma = read_table(CORPUS / "numbers_ambiguous.csv", Reading(decimal=","))
    point = read_table(CORPUS / "numbers_ambiguous.csv", Reading(decimal="."))
    assert comma.frame["price"].tolist() == [1234, 812]
    assert point.frame["price"].tolist() == [1.234, 812]
    table = read_table(CORPUS / "bank_ambiguous_dates.csv", Reading(date_format="%m/%d/%Y"))
    assert table.frame["Date"].dt.month.tolist() == [1, 3, 2]
    assert not table.schema.found["Date"].ambiguous


def test_a_form_of_dates_that_is_not_known_can_be_said() -> None:
    table = read_table(CORPUS / "dates_that_do_not_exist.csv", Reading(date_format="%d.%m.%Y %H.%M"))
    assert table.frame["clock"].astype(str).tolist()[2] == "2024-01-17 10:22:00"
