"""The command line of a method: its types, defaults and help are those of the signature and the docstring."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pytest

from dlrunner.cli.options import description_of, options_of, returns_text, values_of
from dlrunner.cli.parser import Parser
from dlrunner.errors import ConfigError
from dlrunner.inference.arguments import checked
from dlrunner.predictor import Answer
from dlrunner.ranges import Count, Probability


class Painter:
    """A predictor's like, with a parameter of every kind."""

    def paint(
        self,
        table: pd.DataFrame | None = None,
        *,
        num_coats: Count = 2,
        opacity: Probability | None = None,
        colour: Literal["red", "blue"] = "red",
        coats: Literal[1, 2] = 1,
        sizes: list[int] | None = None,
        places: list[Path] | None = None,
        out: Path | None = None,
        text: str | Path = "",
        id: int | str | None = None,
        class_: str | None = None,
        dry: bool = False,
        frame: bool = True,
    ) -> dict[str, Any]:
        """Paint a table,
        100% of it.

        This is not shown.

        Args:
            table: what is painted.
            num_coats: of paint, in
                numbers.
            opacity, colour: how; at most 100%: not more.
            coats: this many.

        Raises:
            ValueError: never.
        """
        given = locals()
        return {name: value for name, value in given.items() if name != "self"}

    def tell(self) -> Answer:
        return Answer("")


def parser() -> Parser:
    made = Parser(prog="paint", description=description_of(Painter.paint), allow_abbrev=False)
    for option in options_of(Painter.paint):
        option.add_to(made)
    return made


def call(*words: str) -> dict[str, Any]:
    paint: Callable[..., dict[str, Any]] = checked(Painter().paint)
    return paint(**values_of(parser().parse(words), options_of(Painter.paint)))


def test_omitted_options_have_the_defaults_of_the_method() -> None:
    assert call() == Painter().paint()


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--num-coats", "3"], "num_coats", 3),
        (["--opacity", "0.5"], "opacity", 0.5),
        (["--opacity", "0"], "opacity", 0.0),
        (["--colour", "blue"], "colour", "blue"),
        (["--coats", "2"], "coats", 2),
        (["--sizes", "3", "4"], "sizes", [3, 4]),
        (["--places", "a", "b"], "places", [Path("a"), Path("b")]),
        (["--out", "5"], "out", Path("5")),
        (["--text", "5"], "text", "5"),
        (["--text", "there.csv"], "text", Path("there.csv")),
        (["--text", "~nobody-of-this-name x"], "text", "~nobody-of-this-name x"),
        (["--text", "long " * 1000], "text", "long " * 1000),
        (["--id", "007"], "id", "007"),
        (["--class", "dog"], "class_", "dog"),
        (["--dry"], "dry", True),
        (["--no-frame"], "frame", False),
    ],
)
def test_words_are_converted_to_the_annotated_type(words: list[str], name: str, value: Any, here: Path) -> None:
    (here / "there.csv").write_text("a\n1\n")
    found = call(*words)[name]
    assert found == value
    assert type(found) is type(value)


def test_a_table_is_read_from_the_given_file(here: Path) -> None:
    (here / "there.csv").write_text("a;b\n1;2\n")
    table = call("there.csv")["table"]
    assert table.to_dict("list") == {"a": ["1"], "b": ["2"]}
    assert table.attrs["file"] == "there.csv"
    with pytest.raises(ConfigError, match=r"there is no file none\.csv"):
        call("none.csv")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--num-coats", "0"], "num_coats: must be greater than or equal to 1, not 0"),
        (["--num-coats", "2.5"], "num_coats: must be an integer, not '2.5'"),
        (["--opacity", "1"], "opacity: must be less than 1, not 1"),
        (["--opacity", "thick"], "opacity: must be a number, not 'thick'"),
        (["--colour", "green"], "colour: must be 'red' or 'blue', not 'green'"),
        (["--coats", "3"], "coats: must be 1 or 2, not 3"),
        (["--sizes", "3", "x"], "sizes[1]: must be an integer, not 'x'"),
        (["--num-coat", "3"], "there is no option --num-coat; did you mean --num-coats?"),
        (["--num-coats"], "argument --num-coats: expected one argument"),
        (["there.csv", "two"], "unexpected argument 'two'"),
    ],
)
def test_an_invalid_word_is_refused_in_one_line(words: list[str], told: str, here: Path) -> None:
    (here / "there.csv").write_text("a\n1\n")
    with pytest.raises(ConfigError) as raised:
        call(*words)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_python_arguments_are_refused_with_the_same_messages() -> None:
    paint = checked(Painter().paint)
    for words, given in (
        (["--num-coats", "0"], {"num_coats": 0}),
        (["--opacity", "thick"], {"opacity": "thick"}),
        (["--colour", "green"], {"colour": "green"}),
        (["--sizes", "3", "x"], {"sizes": [3, "x"]}),
    ):
        with pytest.raises(ConfigError) as terminal:
            call(*words)
        with pytest.raises(ConfigError) as python:
            paint(**given)
        assert str(terminal.value) == str(python.value)
    with pytest.raises(ConfigError, match="paint: has no option colours; did you mean colour"):
        paint(colours="red")
    with pytest.raises(ConfigError, match="id: must be an integer or a string, not a DataFrame"):
        paint(id=pd.DataFrame())


def test_the_help_is_that_of_the_docstring() -> None:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit):
        parser().parse(["--help"])
    text = " ".join(shown.getvalue().split())
    assert "Paint a table, 100% of it." in text
    assert "This is not shown" not in text
    assert "FILE what is painted" in text
    assert "--num-coats N of paint, in numbers (default: 2)" in text
    assert "--opacity X how; at most 100%: not more" in text
    assert "--colour {red,blue} how; at most 100%: not more (default: red)" in text
    assert "--out PATH" in text
    assert "--class CLASS" in text
    assert "--no-frame" in text


def test_a_method_that_returns_a_text_is_recognised_by_its_annotation() -> None:
    assert returns_text(Painter.tell)
    assert not returns_text(Painter.paint)
