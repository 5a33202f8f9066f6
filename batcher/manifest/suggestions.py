"""Suggests which columns of a manifest have its texts and ids, as options to copy."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from batcher.manifest.columns import Columns
from batcher.manifest.faults import CONTROLS
from batcher.manifest.markup.doubts import Doubts

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
_VOICE_WORDS: Final = """
character charactername speaker speakername role actor narrator voiceactor voicename persona
figur sprecher sprecherin rolle stimme personnage locuteur voix personaje hablante voz personaggio parlante voce
personagem falante персонаж диктор голос роль 角色 人物 话者 話者 配音 キャラクター
"""
_VOICE_NAMES: Final = frozenset(_VOICE_WORDS.split())
_TEXT_NAMES: Final = frozenset(_TEXT_WORDS.split())
_ID_NAMES: Final = frozenset(_ID_WORDS.split())
_LETTERS: Final = re.compile(r"[^\W\d_]")
_ID: Final = re.compile(r"[\w./:#-]+")
_SHOWN: Final = 4
_CELL_BEGIN: Final = 500
"""Characters of a cell that are looked at."""
_MIN_SERIES: Final = 3
_LONGEST_NAME: Final = 60
_MOST_WORDS: Final = 6
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


def is_id(cell: str) -> bool:
    """Whether the cell may be an id that gives a good file name: a word, and no decimal number."""
    return len(cell) <= _LONGEST_ID and _ID.fullmatch(cell) is not None and not re.fullmatch(r"\d*[.,]\d+", cell)


def form(cell: str) -> str:
    """`a9-9` for `BK01-0001`: letters and digits in a row are one."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", cell))


def begin_with_ids(texts: Sequence[str]) -> bool:
    """Whether each of several texts begins with a word of the same form, with a number that no other has."""
    found = [re.match(r"(\S*\d\S*)\s+\S", text[:_CELL_BEGIN]) for text in texts]
    words = [match[1] for match in found if match is not None]
    is_series = len(words) == len(texts) >= _MIN_SERIES and len(set(words)) == len(words)
    return is_series and len(set(map(form, words))) == 1


def voice_column(headers: Iterable[str]) -> str | None:
    """The first header that, by its name, is that of a column of speakers; None if there is none."""
    return next((header for header in headers if _normal(header) in _VOICE_NAMES), None)


def or_others(options: Sequence[str]) -> str:
    """What follows options that may be wrong: the other ones."""
    return f"; or, if another column has the texts, {', '.join(options)}" if options else ""


def suggest_columns(columns: Columns, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str | None:
    """What to do about a table without a column for the text; None if no column has words."""
    options = suggested_options(columns, headers, rows)
    if not options:
        return None
    stripping = " (--allow instead of --strip buys the texts as they are)" if "--strip" in options[0] else ""
    return f"pass {options[0]}{stripping}{or_others(options[1:])}"


def suggested_options(columns: Columns, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The options that name the column of the texts, and that of the ids if there is one: the likeliest first, and one
    for each column that may be it."""
    named = [(index, " ".join(header.split())) for index, header in enumerate(headers)]
    cells = {header: _cells(rows, index) for index, header in named if _is_name(header)}
    texts = [header for header in cells if _may_be_text(header, cells[header])]
    texts = texts or [header for header in cells if any(map(_LETTERS.search, cells[header]))]
    texts.sort(key=lambda header: _likeliness(header, cells[header]), reverse=True)
    likely = [header for header in texts if _is_likely(header, cells[header])]
    options = []
    for text in (likely or texts)[:_SHOWN]:
        ids = [header for header in cells if header != text and _names_rows(header, cells[header])]
        if columns.mapped_to("id") is not None or any(columns.field_named(header) == "id" for header in headers):
            ids = []
        chosen = [f"text={text}", *(f"id={header}" for header in ids[:1])]
        options.append(" ".join(f"--column {shlex.quote(one)}" for one in chosen) + _strip(cells[text]))
    return options


def _strip(texts: Sequence[str]) -> str:
    """The option that removes the markup of these texts, if they have any."""
    doubts = Doubts(())
    for number, text in enumerate(texts, 1):
        doubts.add(number, number, text)
    types = [doubt.type for doubt in doubts.found() if doubt.type not in ("todo", "lost")]
    return f" --strip {','.join(types)}" if types else ""


def suggest_paths(columns: Columns, objects: Sequence[Mapping[str, Any]]) -> str | None:
    """What to do about JSON objects without a text, as for a table: the options may name nested values."""
    for name, value in (member for one in objects for member in one.items()):
        if (
            isinstance(value, list)
            and len(value) > 1
            and any(columns.names_text(one) for one in value if isinstance(one, dict))
        ):
            command = f"jq -c '..|.{name}?|arrays|.[]' FILE > lines.jsonl"
            return f"the rows are in the lists `{name}` of these objects; take them out: {command}"
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
        case list() if all(isinstance(inner, dict) and "role" in inner for inner in value):
            for index, inner in enumerate(value[:_LIST_ITEMS]):
                yield from _leaves(f"{path}.{index}", inner)


def _cells(rows: Iterable[Sequence[str]], index: int) -> list[str]:
    return [row[index].strip()[:_CELL_BEGIN] for row in rows if index < len(row) and row[index].strip()]


def _share_of_prose(cells: Sequence[str]) -> float:
    return sum(map(is_prose, cells)) / len(cells) if cells else 0.0


def _normal(header: str) -> str:
    """The last name of a path, without case, spaces and punctuation."""
    return re.sub(r"[\W_]+", "", re.split(r"\.(?=\w)", header)[-1]).casefold()


def _is_name(header: str) -> bool:
    """Whether a first row's cell may name a column, and is no line of some other format."""
    is_short = len(header) <= _LONGEST_NAME and header.count(" ") < _MOST_WORDS
    is_plain = not re.search(rf"[{CONTROLS}\"<>]|:$|: |^\d+:\d", header)
    return bool(header) and header.isprintable() and is_short and is_plain and not header.startswith(("//", "#"))


def _may_be_text(header: str, cells: Sequence[str]) -> bool:
    """Whether the column has words: several, or letters of a language without spaces."""
    wordy = any(re.search(r"[^\W\d_]\S*\s+\S", cell) or _DENSE.search(cell) for cell in cells)
    return wordy or (_normal(header) in _TEXT_NAMES and any(map(_LETTERS.search, cells)))


def _is_likely(header: str, cells: Sequence[str]) -> bool:
    return _share_of_prose(cells) >= 1 / 3 or _normal(header) in _TEXT_NAMES


def _likeliness(header: str, cells: Sequence[str]) -> tuple[bool, bool, float]:
    share = _share_of_prose(cells)
    return share >= 1 / 3 and _normal(header) in _TEXT_NAMES, _is_likely(header, cells), sum(map(len, cells))


def _names_rows(header: str, cells: Sequence[str]) -> bool:
    """Whether the column is one of ids by its name, and all its cells are different words."""
    is_named = _normal(header) in _ID_NAMES or not _normal(header)
    return is_named and len(cells) > 1 and len(set(cells)) == len(cells) and all(map(is_id, cells))
