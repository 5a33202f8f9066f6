"""Values that no database and no request can hold."""

from __future__ import annotations

import re
from itertools import chain
from typing import Any, Final

from batcher.manifest.faults import Problem

_NESTING: Final = 32
_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_NUL: Final = "contains a NUL character: remove it"
_HALF_SURROGATE: Final = "contains a broken character (half of a surrogate pair): type it again"


def is_storable(text: str) -> bool:
    """Whether the text contains neither a NUL nor half of a surrogate pair."""
    return "\0" not in text and (text.isascii() or not _SURROGATE.search(text))


def unstorable(values: dict[str, Any]) -> list[Problem]:
    """A problem for each value that no database or request can hold. The rest of that row is not read."""
    problems = []
    for name, value in values.items():
        if reason := _why_unstorable(name, 0) or _why_unstorable(value, _NESTING):
            problems.append(Problem(field=name, cause=reason, reason=reason))
    return problems


def _why_unstorable(value: Any, levels: int) -> str:
    if isinstance(value, str):
        if is_storable(value):
            return ""
        return _NUL if "\0" in value else _HALF_SURROGATE
    if not isinstance(value, (dict, list)):
        return ""
    if not levels:
        return f"is nested more than {_NESTING} levels deep: flatten it"
    inner = chain(value, value.values()) if isinstance(value, dict) else value
    return next((reason for item in inner if (reason := _why_unstorable(item, levels - 1))), "")
