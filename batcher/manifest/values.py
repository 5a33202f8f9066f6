"""Checks of single values: each returns the value as it will be used."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, Final

from batcher.item import FORMATS, PARAMETERS, RESERVED
from batcher.manifest.faults import InvalidValueError, code, literal, without_controls

NUMERIC: Final = ("speed", "volume", "pitch", "stability", "similarity")
"""Parameters that are numbers."""
_PARAMETERS: Final = frozenset(PARAMETERS)
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
_DECIMAL_COMMA: Final = re.compile(r"[+-]?\d*,\d+", re.ASCII)
_TAKE: Final = re.compile(r"0*[1-9]\d{0,8}", re.ASCII)
_MAX_WORD_LENGTH: Final = 200


def string(value: Any) -> str:
    """A text.

    Raises:
        InvalidValueError: it is of another type.
    """
    if isinstance(value, str):
        return value
    fix = "write a single string" if isinstance(value, (dict, list)) else "put it in quotes"
    raise InvalidValueError("type", f"{literal(value)} is not a string: {fix}")


def _text(value: Any) -> str:
    text = string(value)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def word(value: Any) -> str:
    """A name: one line of limited length.

    Raises:
        InvalidValueError: it is none.
    """
    word = string(value)
    if len(word) > _MAX_WORD_LENGTH:
        reason = f"{literal(word)} has {len(word):,} characters: use at most {_MAX_WORD_LENGTH}"
        raise InvalidValueError("long", reason)
    return without_controls(word)


def _id(value: Any) -> str:
    return word(str(value) if type(value) is int else value)


def _format(value: Any) -> str:
    name = string(value).lower()
    if name not in FORMATS:
        choices = f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise InvalidValueError("unknown", f"{literal(value)} is not a format: use {choices}")
    return name


def _take(value: Any) -> int:
    if isinstance(value, (bool, float, dict, list)) or not _TAKE.fullmatch(str(value)):
        raise InvalidValueError("number", f"{literal(value)} is not a take: use 1, 2, 3, ...")
    return int(value)


def with_decimal_point(value: str) -> str:
    """The number with a decimal point, if it has a decimal comma."""
    return value.replace(",", ".") if _DECIMAL_COMMA.fullmatch(value) else value


def _number(value: Any) -> float:
    if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value):
        raise InvalidValueError("comma", f"{literal(value)} has a decimal comma: write {with_decimal_point(value)}")
    if isinstance(value, (bool, dict, list)) or (isinstance(value, str) and not _NUMBER.fullmatch(value)):
        raise InvalidValueError("number", f"{literal(value)} is not a number: use digits, as in 1 or 0.8")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidValueError("finite", f"{literal(value)} is too large: write a smaller number")
    return number


def _params(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidValueError("type", f'{literal(value)} is not an object: use one such as {{"speed": 0.8}}')
    checked: dict[str, Any] = {}
    for name, given in value.items():
        inner = given.strip() if isinstance(given, str) and name in _PARAMETERS else given
        if name in RESERVED:
            reason = f"{code(name)} cannot be set here: use the {code(RESERVED[name])} column"
            raise InvalidValueError(f"reserved {name}", reason)
        if inner is None or (inner == "" and name in _PARAMETERS):
            continue
        try:
            checked[name] = CHECKS[name](inner) if name in _PARAMETERS else inner
        except InvalidValueError as error:
            raise InvalidValueError(f"{name} {error.cause}", f"{code(name)}: {error}") from None
    return checked


CHECKS: Final[dict[str, Callable[[Any], Any]]] = {
    "text": _text,
    "id": _id,
    "model": word,
    "format": _format,
    "take": _take,
    "output": string,
    "params": _params,
    "language": string,
    "emotion": string,
} | dict.fromkeys(NUMERIC, _number)
"""By field or parameter: the check of its value. It raises InvalidValueError for one that cannot be used."""
