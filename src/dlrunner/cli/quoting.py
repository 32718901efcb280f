"""Quotation marks of Hydra's grammar, which has only some of ASCII: set where a value is readable without them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

FUNCTION = re.compile(r"(?:bool|choice|float|glob|int|interval|range|shuffle|sort|str|tag)\(")
"""What Hydra calculates; such a value has a mistake of its own."""
CLOSING = {"[": "]", "{": "}", "(": ")"}


def quoted(text: str) -> str:
    """Quote a text for Hydra's grammar, where backslashes count only before a quotation mark.

    >>> print(quoted("it's"), quoted("a\\\\b"), quoted("a\\\\"))
    'it\\'s' 'a\\b' 'a\\\\'
    """
    return "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + (r"\'" if found[2] else ""), text) + "'"


def with_quotes(value: str, is_readable: Callable[[str], bool]) -> str | None:
    """Return a value whose texts are quoted where Hydra cannot read them, or None where it is not clear what is meant.

    Args:
        value: as it was typed: a text, a list `[größe,Price (EUR)]`, or several values of a sweep `größe,b`.
        is_readable: returns whether Hydra reads a value.

    >>> print(with_quotes("[größe,a=b,c,1]", lambda value: value in ("c", "1")))
    ['größe','a=b',c,1]
    """
    value = value.strip()
    is_list = value[:1] == "[" and value[-1] == "]"
    found = []
    for part in _parts(value[1:-1] if is_list else value):
        text = (part or "").strip()
        if text and is_readable(text):
            found.append(text)
        elif is_list and text[:1] == "[" and (inner := with_quotes(text, is_readable)):
            found.append(inner)
        elif not text or text[0] in "\"'[{" or FUNCTION.match(text):
            return None
        else:
            found.append(quoted(text))
    return f"[{','.join(found)}]" if is_list else ",".join(found)


def _parts(text: str) -> Iterator[str | None]:
    """Yield what commas separate outside of brackets, and of quotation marks where a part begins; None: no end."""
    start = place = 0
    while place < len(text):
        if text[place] in "\"'" and not text[start:place].strip():
            end = _end_of_quotation(text, place)
        elif text[place] in CLOSING:
            end = _end(text, place)
        else:
            end = place + 1
            if text[place] == ",":
                yield text[start:place]
                start = end
        if end is None:
            yield None
            return
        place = end
    yield text[start:]


def _end(text: str, start: int) -> int | None:
    """Return the place after the bracket that closes the one at a place."""
    open_brackets: list[str] = []
    for place in range(start, len(text)):
        if text[place] in CLOSING:
            open_brackets.append(CLOSING[text[place]])
        elif text[place] in CLOSING.values() and open_brackets.pop() != text[place]:
            return None
        if not open_brackets:
            return place + 1
    return None


def _end_of_quotation(text: str, start: int) -> int | None:
    found = re.compile(r"\\.|" + text[start]).finditer(text, start + 1)
    return next((each.end() for each in found if each[0] == text[start]), None)
