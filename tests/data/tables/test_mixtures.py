"""What is silently text although it looks like numbers, dates or times is told with rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlrunner.data.tables.table import read_table


@pytest.mark.parametrize(
    ("values", "doubt"),
    [
        (["€ 12", "$ 12", "€ 1"], "several units, '€ 12' (row 2) and '$ 12' (row 3)"),
        (["12 EUR", "NA", "3.50 USD"], "several units, '12 EUR' (row 2) and '3.50 USD' (row 4)"),
        (["12", "3 kg"], "several units, '12' (row 2) and '3 kg' (row 3)"),
        (["1;5", "2.5", "7"], None),
        (["2.5", "7", "1,5"], "several decimal signs, '2.5' (row 2) and '1,5' (row 4)"),
        (["99:30", "8:05"], "look like durations, such as '99:30' (row 2)"),
        (["€110.5M", "€600K"], "several units, '€110.5M' (row 2) and '€600K' (row 3)"),
        (["1.2M", "488K", "12"], "several units, '1.2M' (row 2) and '488K' (row 3)"),
        (["2020-01-31", "31/01/2020"], "several formats, '2020-01-31' (row 2) and '31/01/2020' (row 3)"),
        (["31.01.2020", "31 Jan 2020"], "several formats"),
        (["1:2", "99:99"], None),
        (["A1", "B2"], None),
        (["12a", "13b"], None),
        (["007", "1.5.2", "2.0.1"], None),
        (["see 1,5", "2.5"], None),
    ],
)
def test_a_mixture_is_told_with_the_rows(values: list[str], doubt: str | None, tmp_path: Path) -> None:
    rows = "".join(f'"{value}",{n}\n' for n, value in enumerate(values))
    (tmp_path / "t.csv").write_text(f"x,n\n{rows}")
    schema = read_table(tmp_path / "t.csv").schema
    assert schema["x"].type == "text"
    found = schema.found["x"].doubt
    assert (found is None) if doubt is None else (found is not None and doubt in found)
    assert not schema.found["x"].ambiguous
    assert read_table(tmp_path / "t.csv", text=["x"]).schema.found["x"].doubt is None, "an id is not a number"


def test_a_few_values_that_are_no_dates_are_told_with_the_row(tmp_path: Path) -> None:
    days = [f"{day:02d}/0{month}/2023" for month in range(1, 5) for day in range(1, 28)]
    days[70:72] = ["soon", "2023-04-31"]
    (tmp_path / "t.csv").write_text("day,n\n" + "".join(f"{day},{n}\n" for n, day in enumerate(days)))
    table = read_table(tmp_path / "t.csv")
    assert table.schema["day"].described() == "date, %d/%m/%Y"
    assert (table.schema.found["day"].num_bad, table.schema.found["day"].bad_example) == (2, "row 72: 'soon'")
    assert len(table.checked(["day"], skip_bad=True).frame) == len(days) - 2
