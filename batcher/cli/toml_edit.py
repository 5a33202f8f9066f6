"""Sets values in the text of a TOML file and leaves everything else in it as it is: other keys, comments, blank lines.

The result is parsed and compared with what it should be; a file that cannot be edited safely is refused.
"""

from __future__ import annotations

import io
import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final

from batcher.errors import UsageError

Value = str | int | float | bool | list[str]
"""A value that can be set."""

_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_HEADER: Final = re.compile(r"\s*\[")


def set_values(text: str, values: Mapping[str, Value], tables: Mapping[str, Mapping[str, str]]) -> str:
    """`text` with these values of top-level keys, and of keys in `tables`.

    Raises:
        UsageError: the text is not valid TOML, or has a form that cannot be edited safely.
    """
    try:
        expected = tomllib.loads(text)
        lines = list(io.StringIO(text, newline=""))
        for name, value in values.items():
            _set(lines, None, name, value, expected)
        for table, inner in tables.items():
            for name, value in inner.items():
                _set(lines, table, name, value, expected)
        edited = "".join(lines)
        if tomllib.loads(edited) != expected:
            raise ValueError("it sets a key in an unusual form")
    except (ValueError, AttributeError) as error:  # TOMLDecodeError is a ValueError
        wanted = "\n".join(_wanted(values, tables))
        raise UsageError(f"the file cannot be edited safely: {error}", f"Add these lines yourself:\n{wanted}") from None
    return edited


def _wanted(values: Mapping[str, Value], tables: Mapping[str, Mapping[str, str]]) -> list[str]:
    lines = [f"{_key(name)} = {_literal(value)}" for name, value in values.items()]
    for table, inner in tables.items():
        lines += [f"[{_key(table)}]", *(f"{_key(name)} = {_literal(value)}" for name, value in inner.items())]
    return lines


def _set(lines: list[str], table: str | None, name: str, value: Value, expected: dict[str, Any]) -> None:
    """Set one value in `lines` and in `expected`, unless it is set already."""
    target = expected if table is None else expected.setdefault(table, {})
    if name in target and target[name] == value and type(target[name]) is type(value):
        return
    target[name] = value
    newline = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
    line = f"{_key(name)} = {_literal(value)}"
    start, end = _section(lines, table, newline)
    found = next((at for at in range(start, end) if _names(lines[at], name)), None)
    if found is not None:
        size = _size(lines, found, end)
        if size > 1 and any("#" in one for one in lines[found : found + size]):
            raise ValueError(f"the value of {name} has comments")
        lines[found : found + size] = [f"{line}{_comment(lines[found])}{newline}"]
        return
    while end > start and not lines[end - 1].strip():
        end -= 1
    if end and not lines[end - 1].endswith("\n"):
        lines[end - 1] += newline
    lines.insert(end, f"{line}{newline}")
    if table is None and end + 1 < len(lines) and lines[end + 1].strip():
        lines.insert(end + 1, newline)


def _section(lines: list[str], table: str | None, newline: str) -> tuple[int, int]:
    """First line and end of the table's keys, or of the top-level keys; a missing table is added at the end."""
    starts = [at for at in range(len(lines)) if _is_header(lines, at)]
    if table is None:
        end = next(iter(starts), len(lines))
        while end < len(lines) and end and lines[end - 1].lstrip().startswith("#"):
            end -= 1  # the comment above a header belongs to it
        return 0, end
    own = next((at for at in starts if _table_of(lines[at]) == table), None)
    if own is None:
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += newline
        lines += [newline] * bool(lines and lines[-1].strip()) + [f"[{_key(table)}]{newline}"]
        return len(lines), len(lines)
    return own + 1, next((at for at in starts if at > own), len(lines))


def _is_header(lines: list[str], at: int) -> bool:
    """Whether a table begins in this line, which may also be part of a value of several lines."""
    if not _HEADER.match(lines[at]):
        return False
    try:
        tomllib.loads("".join(lines[:at]))
    except tomllib.TOMLDecodeError:
        return False
    return True


def _table_of(line: str) -> str:
    parsed = tomllib.loads(line)
    name, inner = next(iter(parsed.items()))
    return name if inner == {} else ""


def _names(line: str, name: str) -> bool:
    """Whether the line begins the value of this key."""
    spellings = "|".join(re.escape(one) for one in (name, json.dumps(name), f"'{name}'"))
    return re.match(rf"\s*(?:{spellings})\s*=", line) is not None


def _size(lines: list[str], at: int, end: int) -> int:
    """Number of lines of the value that begins in line `at`."""
    for size in range(1, end - at + 1):
        try:
            tomllib.loads("".join(lines[at : at + size]))
        except tomllib.TOMLDecodeError:
            continue
        return size
    raise ValueError("a value does not end")


def _comment(line: str) -> str:
    """The comment at the end of a line with a value, and the blanks before it; "" if there is none."""
    for found in re.finditer(r"\s*#", line):
        try:
            tomllib.loads(line[: found.start()])
        except tomllib.TOMLDecodeError:
            continue
        return line[found.start() :].rstrip("\r\n")
    return ""


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _literal(name)


def _literal(value: Value) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        value = int(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
