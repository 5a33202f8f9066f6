"""Suggests which columns of a manifest have its texts and ids, as options to copy."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from batcher.manifest.columns import Columns
from batcher.manifest.faults import CONTROLS

_PROSE: Final = re.compile(r"\S+\s+\S.*[.!?…\u3002\uff1f\uff01][\"'\u201d\u2019\xbb)]*|(\S+\s+){5,}\S+", re.DOTALL)
_DENSE: Final = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]")
"""Characters of languages that put no spaces between words."""
_TEXT_WORDS: Final = """
text sourcestring sourcetext source targettext target translation translated sentence line dialogue dialog
dialogline message defaultmessage msgstr transcript transcription normalizedtext script prompt content contents input
utterance
phrase speech narration voiceover string value caption subtitle english en enus linetext dialoguetext texten front
"""
_ID_WORDS: Final = """
key identifier guid uuid uid stringid textid lineid sentenceid dialogueid phraseid keyname keyid name filename file
path audio audiofile audiopath wav wavfile customid void clipid clip entryid recordid msgid rowname code label slug
nr no number index column1 stringkey resourcekey resourceid msgctxt
"""
_TEXT_NAMES: Final = frozenset(_TEXT_WORDS.split())
_ID_NAMES: Final = frozenset(_ID_WORDS.split())
_SHOWN: Final = 4
_LONGEST_ID: Final = 64
_LIST_ITEMS: Final = 3


def is_prose(cell: str) -> bool:
    """Whether the cell is a sentence, or many words."""
    return _PROSE.fullmatch(cell.strip()) is not None


def prose_column(rows: Sequence[Sequence[str]]) -> str | None:
    """The header of the first column of which at least half the filled cells are prose; None if there is none."""
    for index, header in enumerate(rows[0] if rows else ()):
        if header.strip() and _share_of_prose(_cells(rows[1:], index)) >= 1 / 2:
            return header.strip()
    return None


def suggest_columns(columns: Columns, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str | None:
    """What to do about a table without a column for the text: the options that name those which may be it, the most
    likely first; None if no column has words."""
    cells = {header: _cells(rows, index) for index, header in enumerate(headers) if header.strip()}
    texts = [header for header in cells if _may_be_text(header, cells[header])]
    texts.sort(key=lambda header: _likeliness(header, cells[header]), reverse=True)
    if not texts:
        return None
    options = [_option("text", header) for header in texts[:_SHOWN] if _is_likely(header, cells[header])]
    options = options or [_option("text", texts[0])]
    if columns.mapped_to("id") is None and not any(columns.field_named(header) == "id" for header in headers):
        named = (header for header in cells if header not in texts[:1] and _names_rows(header, cells[header]))
        options[0] += "".join(_option(" id", header) for header in list(named)[:1])
    if len(options) == 1:
        return f"{texts[0]} may be it: pass {options[0]}"
    return f"pass {options[0]}; or, if another column has the texts, {', '.join(options[1:])}"


def suggest_paths(columns: Columns, objects: Sequence[Mapping[str, Any]]) -> str | None:
    """What to do about JSON objects without a text, as for a table: the options may name nested values."""
    flat = [dict(_leaves("", one)) for one in objects]
    headers = list(dict.fromkeys(header for one in flat for header in one))
    return suggest_columns(columns, headers, [[one.get(header, "") for header in headers] for one in flat])


def _leaves(path: str, value: Any) -> Iterable[tuple[str, str]]:
    match value:
        case str():
            yield path, value
        case int() if not isinstance(value, bool):
            yield path, str(value)
        case dict():
            for name, inner in value.items():
                yield from _leaves(f"{path}.{name}" if path else name, inner)
        case list():
            for index, inner in enumerate(value[:_LIST_ITEMS]):
                yield from _leaves(f"{path}.{index}", inner)


def _cells(rows: Iterable[Sequence[str]], index: int) -> list[str]:
    return [row[index].strip() for row in rows if index < len(row) and row[index].strip()]


def _share_of_prose(cells: Sequence[str]) -> float:
    return sum(map(is_prose, cells)) / len(cells) if cells else 0.0


def _normal(header: str) -> str:
    """The last name of a path, without case, spaces and punctuation."""
    return re.sub(r"[\W_]+", "", re.split(r"\.(?=\w)", header)[-1]).casefold()


def _may_be_text(header: str, cells: Sequence[str]) -> bool:
    """Whether the column has words: several, or letters of a language without spaces."""
    if re.search(f"[{CONTROLS}]", header):
        return False
    wordy = sum(bool(re.search(r"[^\W\d_]\S*\s+\S", cell) or _DENSE.search(cell)) for cell in cells)
    return wordy > 0 or (_normal(header) in _TEXT_NAMES and any(re.search(r"[^\W\d_]", cell) for cell in cells))


def _is_likely(header: str, cells: Sequence[str]) -> bool:
    return _share_of_prose(cells) >= 1 / 3 or _normal(header) in _TEXT_NAMES


def _likeliness(header: str, cells: Sequence[str]) -> tuple[bool, bool, float]:
    share = _share_of_prose(cells)
    return share >= 1 / 3 and _normal(header) in _TEXT_NAMES, _is_likely(header, cells), sum(map(len, cells))


def _names_rows(header: str, cells: Sequence[str]) -> bool:
    """Whether the column is one of ids by its name, and all its cells are different words."""
    is_word = all(len(cell) <= _LONGEST_ID and not re.search(r"[\s/\\]", cell) for cell in cells)
    return _normal(header) in _ID_NAMES and len(cells) > 1 and len(set(cells)) == len(cells) and is_word


def _option(field: str, header: str) -> str:
    space = " " if field.startswith(" ") else ""
    return f"{space}--column {shlex.quote(f'{field.strip()}={header}')}"
