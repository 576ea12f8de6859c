"""One line of a review or metadata file as a dictionary: JSON, almost JSON, or the Python literals of the 2014 release.

Lines are data of strangers: nothing is evaluated, a literal is parsed as a literal (`ast.literal_eval`).
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from datetime import UTC, date, datetime
from typing import Any

from llmemf.scenarios.bad_lines import BadLine
from llmemf.scenarios.lines import decode

LONGEST_LITERAL = 1 << 22
"""Bytes; the tree of a literal takes a hundred times its text."""
LITERAL = re.compile(r"\s*\{\s*'")
JSON_ESCAPE = re.compile(r'\\(["\\/bfnrt]|u[0-9a-fA-F]{4})?')
LITERAL_ESCAPE = re.compile(r"(\\\\)|\\N(?!\{)")
_STRING = r"""'[^'\\]*+(?:\\.[^'\\]*+)*+'|"[^"\\]*+(?:\\.[^"\\]*+)*+\""""
_PAIR = rf"""'(%s\w+)'\s*+:\s*+(%s{_STRING}|[-+.\w]++|\[[-+.\w\s,]*+\])\s*+(?:,\s*+|(?=\}}))"""
PAIR = re.compile(_PAIR % ("", ""))
FLAT = re.compile(rf"\s*+\{{\s*+(?:{_PAIR % ('?:', '?:')})++\}}\s*+")

MISSING = ("", r"\N")
"""Strings that stand for nothing; the latter is how databases export it."""
ITEM_KEYS = ("parent_asin", "asin")
"""Where an item's id is; of 2023, whose reviews have both, the parent is the item that the metadata describes."""

MILLISECONDS_FROM = 100_000_000_000
"""Times from here on are milliseconds: as seconds they would lie in the year 5138, as milliseconds in 1973."""
LATEST_TIME = 4_102_444_800
"""Start of the year 2100 in Unix seconds; later times, and those before 1970, are mistakes."""
WHOLE = re.compile(r"[0-9]+\.0")
EXACT_FLOATS = 2**53
"""Whole numbers below are exact as floating-point numbers."""

NO_TIME = "time is neither a number of seconds nor a date like 2023-05-31 or 2023-05-31 18:04:00"
BAD_ESCAPE = "invalid escape or control character in a string"


def parse_record(line: bytes) -> tuple[dict, list[str]]:
    """The record of a line, and what had to be put right to read it.

    Raises:
        BadLine: the line is no record, for example one that is cut off.
    """
    text, wrong_bytes = decode(line)
    mended = [wrong_bytes] if wrong_bytes else []
    if LITERAL.match(text):
        record = _literal(text, mended)
    else:
        try:
            record = json.loads(text)
        except (ValueError, RecursionError):
            record = _mended_json(text, mended)
    if not isinstance(record, dict):
        raise BadLine("not a record of names and values")
    return record, mended


def flat_literal(text: str) -> dict[str, str] | None:
    """Names and unparsed values of a Python dictionary of strings, numbers and lists of numbers.

    Ten times as fast as parsing the literal. None if the text is anything else, also if it is one broken.
    """
    if FLAT.fullmatch(text) is None:
        return None
    return dict(PAIR.findall(text))


def _mended_json(text: str, mended: list[str]) -> object:
    """JSON with backslashes that escape nothing (as in \\N) and raw control characters."""
    try:
        record = json.loads(JSON_ESCAPE.sub(lambda found: found[0] if found[1] else r"\\", text), strict=False)
    except (ValueError, RecursionError):
        raise BadLine("neither JSON nor a Python literal") from None
    mended.append(BAD_ESCAPE)
    return record


def _literal(text: str, mended: list[str]) -> object:
    if len(text) > LONGEST_LITERAL:
        raise BadLine(f"a Python literal of more than {LONGEST_LITERAL >> 20} MiB")
    try:
        return _evaluated(text)
    except BadLine:
        # Strings may hold \N, which Python takes for the beginning of a character's name.
        safe = LITERAL_ESCAPE.sub(lambda found: found[0] if found[1] else r"\\N", text)
        if safe == text:
            raise
    mended.append(BAD_ESCAPE)
    return _evaluated(safe)


def _evaluated(text: str) -> object:
    try:
        if "\\" not in text:
            return ast.literal_eval(text.strip())
        # Escapes that Python does not know are warned of; here they are data.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise BadLine("neither JSON nor a Python literal") from None


def identifier(record: dict, keys: tuple[str, ...], reason: str) -> str:
    """The first usable one of several fields, as a string; a whole number, or the only member of a list, counts as well.

    Tables write whole numbers as 118.0 where the column lacks a value somewhere, and CSV files keep that as text.

    Raises:
        BadLine: there is none; with the given reason.
    """
    fraction = False
    for key in keys:
        value = record.get(key)
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, float) and abs(value) < EXACT_FLOATS:
            fraction = not value.is_integer()
            value = None if fraction else int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str) and value.strip() not in MISSING:
            name = value.strip()
            return name.removesuffix(".0") if WHOLE.fullmatch(name) else name
    raise BadLine(f"{reason}: a number with a fraction" if fraction else reason)


def unix_seconds(value: object) -> int:
    """Unix seconds of a number (seconds or milliseconds), a date, or either as text; UTC where no zone is given.

    Raises:
        BadLine: it is none of these, or lies before 1970 or after 2099.
    """
    if value is None or (isinstance(value, str) and value.strip() in MISSING):
        raise BadLine("no time")
    time: Any = value
    if isinstance(value, date):
        time = value if isinstance(value, datetime) else datetime(value.year, value.month, value.day)
    elif type(value) is not int:
        try:
            time = int(float(str(value)))
        except (ValueError, OverflowError):
            try:
                time = datetime.fromisoformat(str(value).strip())
            except ValueError:
                raise BadLine(NO_TIME) from None
    if isinstance(time, datetime):
        time = int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp())
    time = time // 1000 if time >= MILLISECONDS_FROM else time
    if not 0 < time < LATEST_TIME:
        raise BadLine("time out of range 1970..2099")
    return time
