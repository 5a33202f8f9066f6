"""Separates the texts of a JSON object of ids and texts from the notes beside them, as in ARB and other resource files
of programs."""

from __future__ import annotations

import re
import shlex
from typing import Any, Final, NamedTuple, NoReturn

from batcher.errors import ManifestError
from batcher.manifest.faults import code
from batcher.manifest.input import Input

_COMMENTS: Final = frozenset({"$schema", "//", "_comment", "__comment", "_comments", "_meta", "$id"})
_NOTE_WORDS: Final = """
version language locale lang sourcelanguage targetlanguage format author created updated generator encoding schema
"""
_NOTES: Final = frozenset(_NOTE_WORDS.split())
"""Names of what describes the file, beside an object that holds its texts."""
_ROW_NOTES: Final = frozenset(("description", "comment", "comments", "context", "note", "notes", "developercomment"))
"""Names of what describes a text, beside it in the object of a row."""
_LISTED: Final = 5
_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(?:[-_](?:[A-Z][a-z]{3}|[A-Z]{2}|[a-z]{2}|\d{3}))*")


class Element(NamedTuple):
    """One element of a JSON array or object: its name there, where its value begins, and the value or its error."""

    name: str
    begin: int
    value: Any


def is_arb(source: Input, members: list[Element]) -> bool:
    """Whether these are the members of an ARB file: names that begin with @ describe the others, or the file."""
    names = {member.name for member in members}
    return source.ending == ".arb" or "@@locale" in names or any(f"@{name}" in names for name in names)


def arb_rows(members: list[Element], text_header: str) -> list[Element]:
    """The rows of an ARB file: its texts, each with its attributes under names that begin with @."""
    attributes = {
        one.name[1:]: one.value for one in members if one.name.startswith("@") and isinstance(one.value, dict)
    }
    rows = []
    for name, begin, value in members:
        if not name.startswith("@"):
            more = {f"@{key}": inner for key, inner in attributes.get(name, {}).items()}
            rows.append(Element(name, begin, {text_header: value} | more if isinstance(value, str) else value))
    return rows


def without_notes(source: Input, members: list[Element]) -> list[Element]:
    """The members without those that are comments, or describe the file beside the only object in it; that object's
    members then.

    Raises:
        ManifestError: the members are languages.
    """
    kept = [member for member in members if member.name not in _COMMENTS]
    containers = [member for member in kept if isinstance(member.value, dict)]
    others = [member for member in kept if not isinstance(member.value, dict)]
    if len(containers) == 1 and all(_normal(one.name) in _NOTES for one in others) and (others or len(kept) == 1):
        name, begin, value = containers[0]
        kept = [Element(inner, begin, one) for inner, one in value.items()]
        source.notes.append(f"the rows are the members of {code(name)}")
    elif len(containers) > 1 and not others and all(_LANGUAGE.fullmatch(one.name) for one in containers):
        _raise_several_languages(source, [member.name for member in containers])
    if left_out := [code(one.name) for one in members if one.name in _COMMENTS]:
        source.notes.append(f"left out: {', '.join(left_out)}")
    return kept


def _raise_several_languages(source: Input, names: list[str]) -> NoReturn:
    message = f"{source.name}: the JSON object has a member for each language ({', '.join(names[:_LISTED])})"
    one = shlex.quote(f'.["{names[0]}"]')
    hint = f"Take one out: jq {one} {shlex.quote(source.name)} > {names[0]}.json"
    raise ManifestError(message, [message], hint)


def are_described(members: list[Element]) -> bool:
    """Whether each member is an object of a text and a description of it, and not of further texts."""
    values = [member.value for member in members]
    if not all(isinstance(value, dict) for value in values):
        return False
    described = [any(_normal(name) in _ROW_NOTES for name in value) for value in values]
    return any(described) and all(len(value) == 1 or found for value, found in zip(values, described, strict=True))


def _normal(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()
