"""Reads gettext PO: each translation is a row. Fuzzy, untranslated and obsolete entries are left out and counted."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from batcher.manifest.faults import literal
from batcher.manifest.input import Input
from batcher.manifest.rows import Record
from batcher.manifest.stream import check_length
from batcher.manifest.table import table_record

_STRING: Final = r'"((?:[^"\\]|\\.)*)"'
_KEYWORD: Final = re.compile(rf"(msgctxt|msgid|msgid_plural|msgstr(?:\[\d{{1,2}}\])?)\s*{_STRING}")
_MORE: Final = re.compile(_STRING)
_BEGINS: Final = re.compile(r'(?:[ \t]*(?:#.*)?\r?\n)*[ \t]*(?:msgctxt|msgid)\s+"')
_ESCAPE: Final = re.compile(r'\\([abfnrtv"\\]|[0-7]{1,3}|x[0-9A-Fa-f]{2})')
_ESCAPED: Final = dict(zip('abfnrtv"\\', '\a\b\f\n\r\t\v"\\', strict=True))
_LANGUAGE: Final = re.compile(r"^Language:\s*(\S+)", re.MULTILINE)
_KEY: Final = re.compile(r"(?=.*[_.])[A-Za-z][A-Za-z\d]*(?:[_.,:/-]+[A-Za-z\d]+)+|[A-Z][A-Z\d_]{2,}")
"""A name that a program gave to a text, such as `MENU_START`."""
_LONGEST_NAME: Final = 48
_HASH_DIGITS: Final = 8


@dataclass(slots=True)
class _Entry:
    """One entry: the parts of its strings by keyword, the line of each, what its comments say, and its size in
    characters."""

    parts: dict[str, list[str]] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    references: list[str] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    is_broken: bool = False
    size: int = 0

    def read(self, line: str, number: int) -> bool:
        """Add a line with a string; return whether it is one that may follow."""
        if (match := _KEYWORD.fullmatch(line)) and match[1] not in self.parts:
            self.parts[match[1]], self.lines[match[1]] = [_decoded(match[2])], number
            return True
        more = _MORE.fullmatch(line)
        if more is None or not self.parts:
            return False
        self.parts[next(reversed(self.parts))].append(_decoded(more[1]))
        return True

    @property
    def strings(self) -> dict[str, str]:
        """The strings by keyword."""
        return {keyword: "".join(parts) for keyword, parts in self.parts.items()}

    @property
    def is_header(self) -> bool:
        """Whether it describes the file."""
        return not any(self.parts.get("msgid", ["?"])) and "msgctxt" not in self.parts

    @property
    def is_complete(self) -> bool:
        """Whether its translation, even if empty, was read."""
        return any(keyword.startswith("msgstr") for keyword in self.parts)

    def name(self) -> str:
        """A name that depends on msgctxt and msgid only: a key as it is, or the first words and a hash."""
        strings = self.strings
        context, original = strings.get("msgctxt"), strings["msgid"]
        if context is None and _is_key(original):
            return original.replace("/", "-").replace(":", "-")
        digest = hashlib.sha256(f"{context or ''}\4{original}".encode("utf-8", "replace")).hexdigest()
        words = context if context is not None and _is_key(context) else original
        begin = re.sub(r"[\W_]+", "-", words)[:_LONGEST_NAME].strip("-").lower()
        return f"{begin}-{digest[:_HASH_DIGITS]}".lstrip("-")


def is_po(beginning: str) -> bool:
    """Whether a file that begins like this is PO."""
    return _BEGINS.match(beginning) is not None


def records(source: Input) -> Iterator[Record]:
    """A record for each translation; of a template, or with `--column text=msgid`, for each original. Its number is
    the line of the translation.

    Raises:
        ManifestError: the encoding is unusable.
    """
    mapped = source.columns.mapped_to("text")
    is_template = source.ending == ".pot" and mapped is None
    originals = is_template or mapped == "msgid"
    names = ["id", "msgstr" if originals else "text", "text" if is_template else "msgid"]
    layout = source.columns.read_header([*names, "msgctxt", "plural", "reference", "comment"], 1)
    left_out: Counter[str] = Counter()
    count = 0
    for entry in _entries(source, left_out):
        if entry.is_header:
            _note_language(source, entry, originals=originals)
            continue
        if "fuzzy" in entry.flags and not originals:
            left_out["fuzzy"] += 1
            continue
        rows = [cells for cells in _rows(entry) if originals or cells[1].strip()]
        left_out["untranslated"] += not rows
        for line, cells in zip(_lines(entry), _rows(entry), strict=True):
            if cells in rows:
                count += 1
                yield table_record(count if source.rules.counted else line, line, cells, layout, "".join(cells))
    _conclude(source, left_out, count)


def _conclude(source: Input, left_out: Counter[str], count: int) -> None:
    if not count and not source.faults:
        way_out = ": to speak the originals, pass --column text=msgid" if left_out["untranslated"] else ""
        source.faults.add(None, None, f"empty: no entry is translated{way_out}", cause="empty", fatal=True)
    if found := [f"{number:,} {what}" for what, number in left_out.items() if number]:
        source.notes.append(f"left out: {', '.join(found)} {'entry' if left_out.total() == 1 else 'entries'}")


def _note_language(source: Input, header: _Entry, *, originals: bool) -> None:
    language = _LANGUAGE.search(header.strings.get("msgstr", ""))
    if originals:
        source.notes.append("the texts are the originals (msgid)")
    elif language is not None:
        source.notes.append(f"the texts are the translations into {language[1]}")


def _rows(entry: _Entry) -> Iterator[list[str]]:
    """The cells of each translation: one, or one for each plural form."""
    name, strings = entry.name(), entry.strings
    context = strings.get("msgctxt", "")
    more = [" ".join(entry.references), "\n".join(entry.comments)]
    for keyword, text in strings.items():
        if keyword == "msgstr":
            yield [name, text, strings["msgid"], context, "", *more]
        elif keyword.startswith("msgstr"):
            form = keyword[len("msgstr[") : -1]
            original = strings.get("msgid_plural", "") if int(form) else strings["msgid"]
            yield [f"{name}.{form}", text, original, context, form, *more]


def _lines(entry: _Entry) -> Iterator[int]:
    return (line for keyword, line in entry.lines.items() if keyword.startswith("msgstr"))


def _entries(source: Input, left_out: Counter[str]) -> Iterator[_Entry]:
    """The complete entries of the file, without obsolete ones. What is no PO becomes a fault."""
    entry = _Entry()
    for number, line in enumerate(source.lines, 1):
        line = line.strip()
        if line.startswith("#~"):
            left_out["obsolete"] += re.match(r"#~\s*msgid\s", line) is not None
            continue
        if _begins(entry, line):
            yield from _complete(source, entry)
            entry = _Entry()
        entry.size += len(line)
        check_length(source.name, number, entry.size)
        if line.startswith("#"):
            _read_comment(entry, line)
        elif line and not entry.is_broken and not entry.read(line, number):
            entry.is_broken = True
            reason = f"{literal(line)} is not valid PO: fix it, for example with msgfmt --check"
            source.faults.add(number, None, reason, cause="po", fatal=True)
    yield from _complete(source, entry)


def _begins(entry: _Entry, line: str) -> bool:
    """Whether another entry begins with this line, or behind it."""
    return not line or (entry.is_complete and line.startswith(("#", "msgctxt", "msgid ")))


def _complete(source: Input, entry: _Entry) -> Iterator[_Entry]:
    """The entry, if it is complete; a fault if something is missing."""
    if entry.is_complete and "msgid" in entry.parts and not entry.is_broken:
        yield entry
    elif entry.parts and not entry.is_broken:
        missing = "msgstr: is the file complete?" if "msgid" in entry.parts else "msgid"
        line = min(entry.lines.values())
        source.faults.add(line, None, f"an entry without a {missing}", cause=f"po {missing}", fatal=True)


def _read_comment(entry: _Entry, line: str) -> None:
    kind, rest = line[1:2], line[2:].strip()
    if kind == ",":
        entry.flags |= {flag.strip() for flag in rest.split(",")}
    elif kind == ":":
        entry.references += rest.split()
    elif kind != "|" and (comment := line[1:].lstrip(".").strip()):
        entry.comments.append(comment)


def _is_key(text: str) -> bool:
    return len(text) <= _LONGEST_NAME and _KEY.fullmatch(text) is not None


def _decoded(string: str) -> str:
    return _ESCAPE.sub(lambda match: _character(match[1]), string)


def _character(escape: str) -> str:
    if escape[0] == "x":
        return chr(int(escape[1:], 16))
    return _ESCAPED[escape] if escape in _ESCAPED else chr(int(escape, 8) & 0xFF)
