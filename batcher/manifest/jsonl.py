"""What one line of a JSONL manifest says."""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

from batcher.manifest.faults import WrongError, kind, quoted


def object_of(line: str) -> dict[str, Any]:
    """The object that the line is.

    Raises:
        WrongError: it is none, or not one that every reader would understand alike.
    """
    try:
        value = _DECODER.decode(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        raise WrongError("json", f"not JSON at character {error.colno}: {error.msg}") from None
    except WrongError:
        raise
    except ValueError:
        raise WrongError("digits", "a number has too many digits") from None
    except RecursionError:
        raise WrongError("deep", "nested too deeply") from None
    if not isinstance(value, dict):
        raise WrongError("object", f"must be an object, not {kind(value)}: a manifest is one JSON object a line")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise WrongError("twice", f"{quoted(twice)} stands twice in one object")
    return value


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise WrongError("finite", f"{quoted(digits)} is too large a number")
    return number


def _no_constant(word: str) -> NoReturn:
    raise WrongError("constant", f"{quoted(word)} is not JSON")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_no_constant)
