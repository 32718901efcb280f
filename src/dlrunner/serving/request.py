"""Requests: a typed model of their bodies, the table of their rows, and the reasons why one is refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model
from pydantic_core import PydanticCustomError

from dlrunner.errors import did_you_mean
from dlrunner.predictor import RowField

HALF = "half_character"
"""The type of an error of a text."""
HALF_NAME = "string_unicode"
"""Pydantic's type of such an error of a name."""


def _without_halves(value: Any) -> Any:
    """Return a value; a text with half of a character, a surrogate without its pair, is refused."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise PydanticCustomError(HALF, "half of a character") from None
    return value


TYPES: dict[str, Any] = {
    "number": Annotated[float, Field(allow_inf_nan=False)],
    "text": Annotated[str, AfterValidator(_without_halves)],
    "boolean": bool,
    "id": Annotated[int | str, AfterValidator(_without_halves)],
    "image": Annotated[str, AfterValidator(_without_halves), Field(json_schema_extra={"contentEncoding": "base64"})],
}
"""JSON types of the fields; nothing is converted."""
NOUNS = {"number": "a number", "text": "a text", "boolean": "true or false", "id": "a text or a whole number"}
NULL = "; null is a missing value"
LARGEST_WHOLE = 1e15
"""Whole numbers below are exact in a float."""
SHAPE = 'send {"rows": [{…}, …]} as application/json'
MOST_REASONS = 100
"""Rows of an answer to a bad request."""


def request_model(fields: Sequence[RowField], max_rows: int) -> type[BaseModel]:
    """Return the model of the body of a request: rows with typed fields, and nothing else."""
    # Names of columns need not be names of Python: they are aliases.
    defined: dict[str, Any] = {f"field_{number}": _defined(field) for number, field in enumerate(fields)}
    strict = ConfigDict(extra="forbid", strict=True)
    row = create_model("Row", __config__=strict, **defined)
    rows = Field(min_length=1, max_length=max_rows, description="to be predicted, in this order")
    return create_model("Request", __config__=strict, rows=(list[row], rows))


def _defined(field: RowField) -> tuple[Any, Any]:
    """Return the type of a field and what the documentation says about it."""
    kind = TYPES[field.type] | None if field.may_be_missing else TYPES[field.type]
    settings: dict[str, Any] = {"alias": field.name, "description": field.description or None}
    if field.example is not None:
        settings["examples"] = [field.example]
    return kind, Field(None, **settings) if field.is_optional else Field(**settings)


def table_of(request: BaseModel, fields: Sequence[RowField]) -> pd.DataFrame:
    """Return the rows of a request as a table, with the columns of the fields that any row has."""
    rows: Sequence[BaseModel] = request.rows  # type: ignore[attr-defined]
    columns = {}
    for number, field in enumerate(fields):
        name = f"field_{number}"
        if not field.is_optional or any(name in row.model_fields_set for row in rows):
            columns[field.name] = _column([getattr(row, name) for row in rows], field)
    return pd.DataFrame(columns)


def _column(values: list[Any], field: RowField) -> pd.Series[Any]:
    if field.type == "number":
        numbers = pd.Series(values, dtype="float64")
        is_whole = (numbers % 1 == 0) & (numbers.abs() < LARGEST_WHOLE)
        return numbers.astype("int64") if is_whole.all() else numbers
    kinds = {"text": "str", "image": "str", "boolean": "boolean", "id": "object"}
    return pd.Series(values, dtype=kinds[field.type])


def refusal(errors: Iterable[Mapping[str, Any]], fields: Sequence[RowField], max_rows: int) -> dict[str, Any]:
    """Return the answer to a request that does not fit the model: a sentence, and a reason for each bad row.

    Args:
        errors: of pydantic.
        fields: of a row.
        max_rows: of a request.
    """
    by_name, errors = {field.name: field for field in fields}, list(errors)
    reasons: dict[int, dict[str, str]] = {}
    for error in errors:
        match error["loc"]:
            case ("body", "rows", int(row), *names):
                name = str(names[0]) if names else ""
                reasons.setdefault(row, {}).setdefault(name, _reason(error, by_name.get(name), name, by_name))
            case _:
                return {"detail": _about_body(error, max_rows)}
    absent = {str(error["loc"][-1]) for error in errors if error["type"] == "missing"}
    hint = NULL if any(by_name[name].may_be_missing for name in absent & by_name.keys()) else ""
    return bad_rows({row: "; ".join(each.values()) for row, each in reasons.items()}, hint)


def bad_rows(reasons: Mapping[int, str], hint: str = "") -> dict[str, Any]:
    """Return the answer to a request with rows that cannot be read; rows are numbered from 0.

    Args:
        reasons: by row.
        hint: ends the sentence.
    """
    first = min(reasons)
    rest = f", and {len(reasons) - 1:,} more" if len(reasons) > 1 else ""
    listed = [{"row": row, "problem": reasons[row]} for row in sorted(reasons)[:MOST_REASONS]]
    return {"detail": f"row {first}: {reasons[first]}{rest}{hint}", "rows": listed}


def _about_body(error: Mapping[str, Any], max_rows: int) -> str:
    """Return what is wrong with a body as a whole."""
    match error["type"], error["loc"]:
        case _, ("query", name):
            return f"{name} is {_shown(error['input'])}, which is not true or false"
        case "json_invalid", _:
            return f"the body is not JSON: {error.get('ctx', {}).get('error', '')}; {SHAPE}"
        case "missing", ("body",):
            return f"the body is empty; {SHAPE}"
        case "missing", _:
            return f"the body has no rows; {SHAPE}"
        case "too_short", _:
            return "rows is empty; give at least one row"
        case "too_long", _:
            return f"a request has at most {max_rows:,} rows; send several requests"
        case "extra_forbidden", (_, *names):
            return f"the body has an entry {_shown(names[0])}, which is unknown; {SHAPE}"
        case type_, _ if type_ == HALF_NAME:
            return f"the body has an entry {_shown(error['input'])}, which is unknown; {SHAPE}"
        case _, ("body", "rows"):
            return f"rows is not a list; {SHAPE}"
    return f"the body is not a JSON object; {SHAPE}"


def _reason(error: Mapping[str, Any], field: RowField | None, name: str, known: Iterable[str]) -> str:
    """Return what is wrong with a row."""
    if error["type"] == HALF_NAME:
        return f"there is no column {_shown(error['input'])}"
    if error["type"] == "extra_forbidden":
        return f"there is no column {_shown(name)}; {did_you_mean(name, known)}"
    if field is None:
        return f"it is {_shown(error['input'])}, not an object with a value for each column"
    if error["type"] == "missing":
        return f"the column {name} is missing"
    if error["input"] is None:
        return f"{name} is missing"
    if error["type"] == HALF:
        return f"{name} is {_shown(error['input'])}, which has half of a character: JSON writes such characters in two"
    if error["type"] == "finite_number":
        return f"{name} is not a finite number"
    return f"{name} is {_shown(error['input'])}, which is not {NOUNS.get(field.type, 'a base64-encoded image')}"


def _shown(value: Any) -> str:
    """Return a value of a request, cut to 60 characters.

    >>> _shown("many"), _shown({"a": 1}), _shown("x" * 100)[-5:]
    ("'many'", 'an object', 'xxxx…')
    """
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = repr(value[:61] if isinstance(value, str) else value)
    return text if len(text) <= 62 else f"{text[:60]}…"
