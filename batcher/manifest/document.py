"""Reads a JSON document: an array of rows, or an object of ids and texts, of ids and rows, or around such an array.

The document is held in memory as text, and its rows are parsed one by one.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any, Final, NoReturn

from batcher.errors import ManifestError
from batcher.manifest import limits
from batcher.manifest.columns import Columns
from batcher.manifest.faults import NOT_READ, InvalidValueError, Problem, code, literal
from batcher.manifest.header import SAMPLE_ROWS, SAMPLE_SIZE
from batcher.manifest.input import Input
from batcher.manifest.jsonl import WHITE, fill, parse_object, parse_value
from batcher.manifest.resources import Element, arb_rows, are_described, is_arb, without_notes
from batcher.manifest.rows import Record
from batcher.manifest.suggestions import suggest_paths

_LINE_END: Final = "\n"
_SHAPES: Final = 'Write an array of objects, such as [{"id": "a1", "text": "Hello."}], or an object of ids and texts.'


def is_document(source: Input) -> bool:
    """Whether JSON is a document, and not one object per line.

    An object on one line is a document if it is the only one, the file's name ends in .json, and it has no text.
    A line that is too long to parse is one if the file's name ends in .json.
    """
    if source.ending == ".arb" or source.lines.beginning().startswith("["):
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
    if len(lines) > 1 or source.ending != ".json":
        return False
    return not _names_text(values, source.columns) or any(map(partial(_has_rows, source.columns), values.values()))


def _has_rows(columns: Columns, value: Any) -> bool:
    """Whether the value is a list of objects with texts."""
    return isinstance(value, list) and any(isinstance(one, dict) and _names_text(one, columns) for one in value)


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
    sample: list[Any] = []
    try:
        for element in _rows(source, text, begin):
            number += 1
            line += text.count(_LINE_END, position, element.begin)
            position = element.begin
            if number <= SAMPLE_ROWS and element.begin < SAMPLE_SIZE and isinstance(element.value, dict):
                sample.append(element.value)
            yield _record(number, line, element, source.columns)
    except json.JSONDecodeError as error:
        reason = f"not valid JSON at character {error.colno}: {error.msg} {NOT_READ}"
        source.faults.add(error.lineno, None, reason, cause="json document", fatal=True)
        return
    if number:
        source.columns.check_file(None, suggest_paths(source.columns, sample))


def _whole(source: Input) -> str:
    if source.size() > limits.MAX_DOCUMENT_BYTES:
        message = f"{source.name}: more than {limits.MAX_DOCUMENT_BYTES >> 20} MiB, too much for a JSON document"
        raise ManifestError(
            message, [message], f"Convert it to JSONL: jq -c '.[]' {shlex.quote(source.name)} > lines.jsonl"
        )
    return source.lines.whole()


def _record(number: int, line: int, element: Element, columns: Columns) -> Record:
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


def _rows(source: Input, text: str, begin: int) -> Iterator[Element]:
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
    else:
        yield from _named_rows(source, members)


def _named_rows(source: Input, members: list[Element]) -> Iterator[Element]:
    """The rows of an object whose members are named by ids.

    Raises:
        ManifestError: the members are languages.
    """
    if is_arb(source, members):
        source.notes.append("the names in the ARB file are the ids of its rows")
        yield from arb_rows(members, _text_header(source.columns))
        return
    if _is_one_row(source, members):
        yield Element("", members[0].begin, {member.name: member.value for member in members})
        return
    members = without_notes(source, members)
    if len(members) == 1 and isinstance(members[0].value, list):
        source.notes.append(f"the rows are the elements of {code(members[0].name)}")
        yield from (Element("", members[0].begin, value) for value in members[0].value)
        return
    has_text = any(isinstance(one.value, dict) and _names_text(one.value, source.columns) for one in members)
    if has_text or are_described(members):
        source.notes.append("the names in the JSON object are the ids of its rows")
        yield from members
    else:
        source.notes.append("the names in the JSON object are ids, and its values are texts")
        for member in members:
            yield from _flat(member)


def _is_one_row(source: Input, members: list[Element]) -> bool:
    """Whether the object is a row itself: it has a text, and no or further fields.

    Raises:
        ManifestError: it may as well be an object of ids and texts, one of which is called as the text.
    """
    names = {member.name: member.value for member in members}
    if not _names_text(names, source.columns) or not all(isinstance(one.value, str) for one in members):
        return False
    fields = [name for name in names if source.columns.field_named(name) is not None]
    if len(names) > 1 and len(fields) == 1:
        message = f"{source.name}: the JSON object has a {code(fields[0])}: it may be one row, or ids and their texts"
        raise ManifestError(message, [message], "Put [ and ] around it if it is a row; otherwise, rename that id.")
    return True


def _raise_shapeless(source: Input, lists: list[str]) -> NoReturn:
    what = f"has several lists ({', '.join(map(code, lists[:5]))})" if len(lists) > 1 else "contains no rows"
    message = f"{source.name}: the JSON object {what}"
    raise ManifestError(message, [message], _SHAPES)


def _names_text(values: dict[str, Any], columns: Columns) -> bool:
    return columns.names_text(values) or columns.has_path("text", values)


def _flat(member: Element) -> Iterator[Element]:
    if not isinstance(member.value, dict):
        yield member
        return
    for name, value in member.value.items():
        yield from _flat(Element(f"{member.name}.{name}", member.begin, value))


def _elements(text: str, begin: int, *, last: bool = False) -> Iterator[Element]:
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


def _parse(text: str, name: str, begin: int) -> tuple[Element, int]:
    """The element whose value begins here, and the position of its end."""
    try:
        value, end = parse_value(text, begin)
    except InvalidValueError as error:
        try:
            _, end = _LENIENT.raw_decode(text, begin)
        except RecursionError:
            raise json.JSONDecodeError("nested too deeply", text, begin) from None
        return Element(name, begin, error), end
    return Element(name, begin, value), end


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
