"""Blank lines within a file are no rows, and the rows below them keep the numbers that they have in the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlrunner.data.tables.table import Reading, read_new_rows, read_table
from dlrunner.errors import DataError


def lines(blank: tuple[int, ...], changed: dict[int, str], end: str = "\n") -> str:
    """Return a hundred rows below a header in which the value of each is the number of its line."""
    found = ["id,n"]
    for number in range(2, 102):
        found.append("" if number in blank else changed.get(number, f"r{number},{number}"))
    return end.join(found) + end


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("blank", [(7,), (2,), (7, 8, 30), (90, 100)])
def test_rows_below_a_blank_line_keep_their_numbers(blank: tuple[int, ...], end: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(lines(blank, {95: "r95,soon"}, end).encode())
    table = read_table(path)
    assert len(table.frame) == 100 - len(blank)
    assert table.schema.found["n"].bad_example == "row 95: 'soon'"
    expected = [number for number in range(2, 102) if number not in blank]
    assert table.rows.numbers(len(table.frame)) == expected
    assert [int(each[1:]) for each in table.frame["id"]] == expected
    new = read_new_rows(path)
    assert new.attrs["rows"].numbers(len(new)) == expected


def test_other_rows_than_the_bad_ones_are_never_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(lines((7, 12), {15: "r15,1,2", 17: "r17", 40: "r40,soon"}))
    with pytest.raises(DataError, match=r"t\.csv, row 15 has more fields"):
        read_table(path)
    table = read_table(path, Reading(skip_bad=True))
    assert any(note.startswith("2 of 98 rows are left out (data.skip_bad): ") for note in table.notes)
    assert table.schema.found["n"].bad_example == "row 40: 'soon'"
    kept = table.checked(["n"], skip_bad=True)
    expected = [number for number in range(2, 102) if number not in (7, 12, 15, 17, 40)]
    assert kept.rows.numbers(len(kept.frame)) == kept.frame["n"].tolist() == expected


@pytest.mark.parametrize("skip_bad", [False, True])
def test_rows_of_parts_with_blank_lines_keep_their_numbers(skip_bad: bool, tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("# a title\n" + lines((50, 60), {}))
    (tmp_path / "2.csv").write_text(lines((2,), {9: "r9"} if skip_bad else {}))
    table = read_table(tmp_path, Reading(skip_bad=skip_bad))
    numbers = [f"1.csv, row {n + 1}" for n in range(2, 102) if n not in (50, 60)]
    numbers += [f"2.csv, row {n}" for n in range(3, 102) if n != 9 or not skip_bad]
    assert table.rows.all_short(len(table.frame)) == numbers


def test_blank_lines_within_quotation_marks_are_no_rows_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('size,note\n5" pipe,a\n\n"2","b\n\n\nc"\n\n3,"d ""e\n\n""f"\n4,g\n')
    table = read_table(path)
    assert table.frame["note"].tolist() == ["a", "b\n\n\nc", 'd "e\n\n"f', "g"]
    assert table.rows.numbers(4) == [2, 4, 6, 7]


def test_rows_of_separators_alone_are_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a;b\n1;2\n;\n\n3;4\n5;6\nTotal;12\n;\n;")
    table = read_table(path)
    assert table.frame["b"].tolist() == [2, 4, 6]
    assert table.rows.numbers(3) == [2, 5, 6]
    assert "3 row(s) of separators alone are left out: row 3" in table.notes
    path.write_text("a;b\n1;2\n3;4\n;\n;\n")
    assert len(read_new_rows(path)) == 2
    assert not read_table(path).notes
