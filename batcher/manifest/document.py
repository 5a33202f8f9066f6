"""Reads a JSON document: an array of rows, or an object of ids and texts, of ids and rows, or around such an array.

The document is held in memory as text, and its rows are parsed one by one.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final, NamedTuple, NoReturn

from batcher.errors import ManifestError
from batcher.manifest import limits
from batcher.manifest.columns import Columns
from batcher.manifest.faults import InvalidValueError, Problem, code, literal
from batcher.manifest.input import Input
from batcher.manifest.jsonl import WHITE, fill, parse_object, parse_value
from batcher.manifest.rows import Record

_LINE_END: Final = "\n"
_NOT_READ: Final = "(the rest of the file was not read)"
_SHAPES: Final = 'Write an array of objects, such as [{"id": "a1", "text": "Hello."}], or an object of ids and texts.'


class _Element(NamedTuple):
    """One element of an array or an object: its name there, where its value begins, and the value or its error."""

    name: str
    begin: int
    value: Any


def is_document(source: Input) -> bool:
    """Whether JSON is a document, and not one object per line.

    An object on a line of its own is a document if it is the only one, the file's name says JSON, and it has no text.
    A line too long to look at is one if the file's name says JSON.
    """
    if source.lines.beginning().startswith("["):
        return True
    with source.lines_ahead() as ahead:
        lines = list(islice((line for line in ahead if not line.isspace()), 2))
        if ahead.cut:
            return source.ending == ".json"
    if not lines:
        return False
    try:
        values = parse_object(lines[0])
    except InvalidValueError:
        return _is_unfinished(lines[0])
    alone = len(lines) == 1 and source.ending == ".json"
    return alone and not _names_text(values, source.columns)


def _is_unfinished(line: str) -> bool:
    """Whether the line is the valid beginning of an object, broken where JSON is usually broken into lines."""
    line = line.strip(WHITE)
    if not line.endswith(("{", "[", ",", ":")):
        return False
    try:
        parse_value(line, 0)
    except json.JSONDecodeError as error:
        return error.pos >= len(line)
    except InvalidValueError:
        return False
    return False


def records(source: Input) -> Iterator[Record]:
    """The records of the document, numbered from 1.

    Raises:
        ManifestError: the encoding is unusable, or the document is too large or has no rows.
    """
    text = _whole(source)
    begin = len(text) - len(text.lstrip(WHITE))
    number, line, position = 0, 1, 0
    try:
        for element in _rows(source, text, begin):
            number += 1
            line += text.count(_LINE_END, position, element.begin)
            position = element.begin
            yield _record(number, line, element, source.columns)
    except json.JSONDecodeError as error:
        reason = f"not valid JSON at character {error.colno}: {error.msg} {_NOT_READ}"
        source.faults.add(error.lineno, None, reason, cause="json document", fatal=True)
        return
    if number:
        source.columns.check_file(None)


def _whole(source: Input) -> str:
    if source.size() > limits.MAX_DOCUMENT_BYTES:
        message = f"{source.name}: more than {limits.MAX_DOCUMENT_BYTES >> 20} MiB, too much for a JSON document"
        raise ManifestError(
            message, [message], f"Convert it to JSONL: jq -c '.[]' {shlex.quote(source.name)} > lines.jsonl"
        )
    return source.lines.whole()


def _record(number: int, line: int, element: _Element, columns: Columns) -> Record:
    record = Record(number, line)
    match element.value:
        case dict() as values:
            named = {"id": element.name} if element.name and columns.field_named("id") == "id" else {}
            has_id = any(columns.field_named(key) == "id" for key in values)
            fill(record, values if has_id else named | values, columns)
        case str() as text:
            fill(record, ({"id": element.name} if element.name else {}) | {_text_header(columns): text}, columns)
        case InvalidValueError() as error:
            record.problems.append(Problem(field=None, cause=error.cause, reason=str(error)))
        case other:
            reason = f"{literal(other)} is neither an object nor a text: write an object with a text"
            record.problems.append(Problem(field=None, cause="object", reason=reason))
    return record


def _text_header(columns: Columns) -> str:
    """A header that is read as the text."""
    return columns.mapped_to("text") or "text"


def _rows(source: Input, text: str, begin: int) -> Iterator[_Element]:
    """The elements that are rows. Nested objects of texts are rows too, whose id is the path.

    Raises:
        JSONDecodeError: the document is not valid JSON.
        ManifestError: it has no rows.
    """
    if not text.startswith(("[", "{"), begin):
        raise json.JSONDecodeError("Expecting value", text, min(begin, len(text)))
    if text[begin] == "[":
        yield from _elements(text, begin, last=True)
        return
    members = list(_elements(text, begin, last=True))
    lists = [member for member in members if text.startswith("[", member.begin)]
    if len(lists) == 1 and text.startswith("{", _skip(text, lists[0].begin + 1)):
        source.notes.append(f"the rows are the elements of {code(lists[0].name)}")
        yield from _elements(text, lists[0].begin)
    elif lists or not any(isinstance(member.value, dict | str) for member in members):
        _raise_shapeless(source, [member.name for member in lists])
    elif any(isinstance(member.value, dict) and _names_text(member.value, source.columns) for member in members):
        source.notes.append("the names in the JSON object are the ids of its rows")
        yield from members
    else:
        source.notes.append("the names in the JSON object are ids, and its values are texts")
        for member in members:
            yield from _flat(member)


def _raise_shapeless(source: Input, lists: list[str]) -> NoReturn:
    what = f"has several lists ({', '.join(map(code, lists[:5]))})" if len(lists) > 1 else "contains no rows"
    message = f"{source.name}: the JSON object {what}"
    raise ManifestError(message, [message], _SHAPES)


def _names_text(values: dict[str, Any], columns: Columns) -> bool:
    return columns.names_text(values) or columns.has_path("text", values)


def _flat(member: _Element) -> Iterator[_Element]:
    if not isinstance(member.value, dict):
        yield member
        return
    for name, value in member.value.items():
        yield from _flat(_Element(f"{member.name}.{name}", member.begin, value))


def _elements(text: str, begin: int, *, last: bool = False) -> Iterator[_Element]:
    """The elements of the array or object that begins here; with `last`, nothing may follow it.

    Raises:
        JSONDecodeError: it is not valid JSON.
    """
    closing = {"[": "]", "{": "}"}[text[begin]]
    position = _skip(text, begin + 1)
    is_open = not text.startswith(closing, position)
    while is_open:
        name = ""
        if closing == "}":
            if not text.startswith('"', position):
                raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, position)
            name, position = parse_value(text, position)
            position = _skip(text, _expect(text, ":", _skip(text, position)))
        element, position = _parse(text, name, position)
        yield element
        position = _skip(text, position)
        is_open = not text.startswith(closing, position)
        if is_open:
            position = _skip(text, _expect(text, ",", position))
    if last and (rest := _skip(text, position + 1)) < len(text):
        raise json.JSONDecodeError("Extra data", text, rest)


def _parse(text: str, name: str, begin: int) -> tuple[_Element, int]:
    """The element whose value begins here, and the position of its end."""
    try:
        value, end = parse_value(text, begin)
    except InvalidValueError as error:
        try:
            _, end = _LENIENT.raw_decode(text, begin)
        except RecursionError:
            raise json.JSONDecodeError("nested too deeply", text, begin) from None
        return _Element(name, begin, error), end
    return _Element(name, begin, value), end


def _expect(text: str, what: str, position: int) -> int:
    if not text.startswith(what, position):
        raise json.JSONDecodeError(f"Expecting '{what}' delimiter", text, position)
    return position + 1


def _skip(text: str, position: int) -> int:
    """The position of the next character that is not white space."""
    while text[position : position + 1] in _WHITE_SET:
        position += 1
    return position


_WHITE_SET: Final = frozenset(WHITE)
_LENIENT: Final = json.JSONDecoder(parse_int=str, parse_float=str)
"""Finds the end of a value that is not accepted."""
