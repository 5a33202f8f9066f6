"""Finds values inside nested JSON objects by a path such as `body.input`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

MISSING: Final = object()
"""What `value_at` returns for a path that leads nowhere."""
_LEVELS: Final = 32


def value_at(value: Any, path: str, normal: Callable[[str], str]) -> Any:
    """The value at the dotted path, in which a number is a position in a list, from 0; `MISSING` if there is none.

    A name that is not found as it is written is compared by its `normal` form.
    """
    if not path:
        return value
    if isinstance(value, list):
        index, _, rest = path.partition(".")
        is_index = index.isascii() and index.isdecimal() and len(index) < _LEVELS and int(index) < len(value)
        return value_at(value[int(index)], rest, normal) if is_index else MISSING
    if not isinstance(value, Mapping):
        return MISSING
    steps = path.split(".")
    for count in range(len(steps), 0, -1):  # names may contain dots
        name = ".".join(steps[:count])
        key = name if name in value else next((key for key in value if normal(key) == normal(name)), None)
        if key is not None:
            found = value_at(value[key], ".".join(steps[count:]), normal)
            if found is not MISSING:
                return found
    return MISSING


def paths_in(value: Mapping[str, Any]) -> list[str]:
    """The paths of all values in an object that are no objects themselves."""
    found: list[str] = []
    for key, inner in value.items():
        found += [f"{key}.{path}" for path in paths_in(inner)] if isinstance(inner, dict) and inner else [key]
    return found
