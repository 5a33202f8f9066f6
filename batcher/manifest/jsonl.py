"""Parses one line of a JSONL manifest, more strictly than `json` does."""

from __future__ import annotations

import json
import math
from typing import Any, Final, NoReturn

from batcher.manifest.faults import InvalidValueError, code, literal, printable


def parse_object(line: str) -> dict[str, Any]:
    """The JSON object in the line.

    Raises:
        InvalidValueError: it is not an object, or not one that every JSON parser reads in the same way.
    """
    try:
        value = _DECODER.decode(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        raise InvalidValueError("json", f"not valid JSON at character {error.colno}: {error.msg}") from None
    except InvalidValueError:
        raise
    except ValueError:
        raise InvalidValueError("digits", "a number has too many digits: shorten it") from None
    except RecursionError:
        raise InvalidValueError("deep", "the line is nested too deeply: flatten it") from None
    if not isinstance(value, dict):
        raise InvalidValueError("object", f"{literal(value)} is not an object: write one JSON object per line")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
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
