"""Reads JSON from a body that may be damaged, or made to be hard to read."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from batcher.provider.limits import MAX_DIGITS, MAX_NESTING

_PARTS: Final = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
"""Strings, so that brackets in them do not count, and brackets."""


def json_object(body: bytes) -> dict[str, Any] | None:
    """The body as a JSON object. Invalid bytes in strings, long numbers and deep nesting do not hide a task id."""
    text = body.decode("utf-8-sig", "replace")
    try:
        try:
            value = json.loads(text, strict=False, parse_int=_integer)
        except RecursionError:
            value = json.loads(_shallow(text), strict=False, parse_int=_integer)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= MAX_DIGITS else None


def _shallow(text: str) -> str:
    """JSON text with null in place of values that are nested too deeply."""
    parts, depth, start = [], 0, 0
    for found in _PARTS.finditer(text):
        if found[0] in "[{":
            depth += 1
            if depth == MAX_NESTING + 1:
                parts += [text[start : found.start()], "null"]
        elif found[0] in "]}":
            if depth == MAX_NESTING + 1:
                start = found.end()
            depth -= 1
    return "".join(parts) + (text[start:] if depth <= MAX_NESTING else "")
