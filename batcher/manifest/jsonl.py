"""Reads JSONL: one JSON object per line, parsed more strictly than `json` does."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from batcher.manifest.columns import Columns
from batcher.manifest.faults import InvalidValueError, Problem, code, literal, printable
from batcher.manifest.header import SAMPLE_ROWS, SAMPLE_SIZE
from batcher.manifest.input import Input
from batcher.manifest.rows import Record
from batcher.manifest.storable import unstorable
from batcher.manifest.suggestions import suggest_paths

WHITE: Final = " \t\r\n"
"""White space between the values of JSON."""


def records(source: Input) -> Iterator[Record]:
    """The records of the file, one JSON object per line.

    Raises:
        ManifestError: the encoding is unusable.
    """
    lines, counted, number = source.lines, source.rules.counted, 0
    sample, size = list[dict[str, Any]](), 0
    for line in lines:
        if line.isspace():
            continue
        number += 1
        record = Record(number if counted else lines.seen, lines.seen)
        try:
            values = parse_object(line)
        except InvalidValueError as error:
            record.problems.append(Problem(field=None, cause=error.cause, reason=str(error)))
        else:
            fill(record, values, source.columns)
            if number <= SAMPLE_ROWS and size < SAMPLE_SIZE:
                sample.append(values)
                size += len(line)
        yield record
    if number:
        source.columns.check_file(None, suggest_paths(source.columns, sample))


def fill(record: Record, values: dict[str, Any], columns: Columns) -> None:
    """Give the record the values of a JSON object."""
    record.problems = unstorable(values)
    if not record.problems:
        record.given, record.extra, record.problems = columns.split(values)


def parse_object(line: str) -> dict[str, Any]:
    """The JSON object in the line.

    Raises:
        InvalidValueError: it is not an object, or not one that every JSON parser reads in the same way.
    """
    try:
        value, end = parse_value(line, len(line) - len(line.lstrip(WHITE)))
        if rest := line[end:].lstrip(WHITE):
            raise json.JSONDecodeError("Extra data", line, len(line) - len(rest))
    except json.JSONDecodeError as error:
        raise InvalidValueError("json", f"not valid JSON at character {error.colno}: {error.msg}") from None
    if not isinstance(value, dict):
        raise InvalidValueError("object", f"{literal(value)} is not an object: write one JSON object per line")
    return value


def parse_value(text: str, begin: int) -> tuple[Any, int]:
    """The JSON value at this position, and the position of its end.

    Raises:
        JSONDecodeError: it is not valid JSON.
        InvalidValueError: not every JSON parser reads it in the same way, or it is nested too deeply.
    """
    try:
        return _DECODER.raw_decode(text, begin)
    except (json.JSONDecodeError, InvalidValueError):
        raise
    except ValueError:
        raise InvalidValueError("digits", "a number has too many digits: shorten it") from None
    except RecursionError:
        raise InvalidValueError("deep", "it is nested too deeply: flatten it") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        repeated = next(name for name, count in counts.items() if count > 1)
        raise InvalidValueError("twice", f"{code(repeated)} occurs twice in one object: remove one")
    return value


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise InvalidValueError("finite", f"{printable(digits)} is too large: write a smaller number")
    return number


def _no_constant(word: str) -> NoReturn:
    raise InvalidValueError("constant", f"{word} is not valid JSON: write a number or null")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)
