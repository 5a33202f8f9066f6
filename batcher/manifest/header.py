"""Decides which row of a table names its columns, and what to advise when that row looks wrong.

No row is taken for the header unseen: a first row that looks like data is an error, and the message has the options
with which all rows are read.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from batcher.manifest.columns import Columns, Layout, with_first_named
from batcher.manifest.input import Input
from batcher.manifest.suggestions import (
    begin_with_ids,
    form,
    is_id,
    is_prose,
    or_others,
    suggest_columns,
    suggested_options,
    voice_column,
)

SAMPLE_ROWS: Final = 30
"""Rows from which a table's header is found."""
SAMPLE_SIZE: Final = 1 << 20
"""Characters in the rows of a sample, at which it ends."""
SKIPPED: Final = "_"
"""The name in `--columns` of a column that is neither sent nor carried."""
_NAME: Final = re.compile(r"[^\W\d][\w -]{0,30}")
_QUOTED_NAME: Final = re.compile(r'"([^"]+)"')
_TYPE: Final = re.compile(
    r"(?P<certain>string|str|int(?:eger|32|64)?|float|double|bool(?:ean)?)(\[\])?|text|number|key"
)
_MIN_NAMES: Final = 2
_WIDTH_LISTED: Final = 20


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A row of the table's beginning that is not blank: its number, its line in the file, and its cells."""

    number: int
    line: int
    cells: list[str]


@dataclass(frozen=True, slots=True)
class Header:
    """The columns of a table, and the row that names them: its number, or that of types below it, and its cells; 0 and
    none if no row does."""

    layout: Layout
    number: int
    cells: list[str]

    def begins_again(self, cells: list[str], columns: Columns, *, after_blank: bool) -> bool:
        """Whether a row begins another table: it repeats the header; or, below a blank row, its cells are names and at
        least one is a field's."""
        if not columns.has_text or len(self.cells) < _MIN_NAMES:
            return False
        if not after_blank:
            return cells == self.cells
        filled = [cell.strip() for cell in cells if cell.strip()]
        return len(filled) >= _MIN_NAMES and all(map(_NAME.fullmatch, filled)) and any(map(columns.field_named, filled))


def find_header(
    source: Input,
    sample: Sequence[SampleRow],
    *,
    stated: list[str] | None = None,
    elsewhere: Callable[[bool], str | None] = lambda _: None,
) -> Header | None:
    """The header of the table that begins with these rows; None, and an error, if it has none.

    `stated` are names of the columns given elsewhere in the file, which then has no header. `--columns` overrides them.
    `elsewhere` finds what to advise if the texts are elsewhere in the file: certainly (True), or perhaps.
    """
    rules = source.rules
    if not sample:
        source.faults.add(None, None, "empty: the first line must name the columns", cause="empty", fatal=True)
        return None
    if rules.no_header or (stated is not None and rules.header_row is None):
        return _unheaded(source, sample, list(rules.names) or stated)
    rows = [row for row in sample if row.number == rules.header_row] if rules.header_row is not None else sample[:1]
    if not rows:
        reason = f"--header-row {rules.header_row}: that row is blank, or the file ends before it"
        source.faults.add(None, None, reason, cause="header row", fatal=True)
        return None
    row = rows[0]
    # Where quotes are part of the texts, they are still not part of a column's name.
    names = [_QUOTED_NAME.sub(r"\1", cell.strip()) for cell in row.cells]
    advice = _advice(source, sample) if rules.header_row is None else None
    is_misplaced = False
    if not source.columns.names_text(names):
        is_misplaced = advice is not None
        below = [one.cells for one in sample if one.number > row.number]
        suggested = suggest_columns(source.columns, with_first_named(names), below)
        other = elsewhere(True) or (None if advice else elsewhere(False))
        if other is None and advice is None and suggested is not None:
            source.faults.suggest(suggested_options(source.columns, with_first_named(names), below)[0])
        if other is not None:
            source.faults.options.clear()
        advice = other or advice or suggested
    layout = source.columns.read_header(names, row.line, advice=advice)
    if is_misplaced:
        return None  # what else is wrong with the rows depends on the right header
    number = row.number
    if any(one.number == number + 1 and _are_types(one.cells) for one in sample):
        number += 1
        source.notes.append(f"row {number} has the types of the columns: left out")
    return Header(layout, number, row.cells)


def _are_types(cells: Sequence[str]) -> bool:
    """Whether the cells are types, as some tables have them below the header."""
    found = [_TYPE.fullmatch(cell.strip().casefold()) for cell in cells if cell.strip()]
    types = [match for match in found if match is not None]
    return len(found) == len(types) >= _MIN_NAMES and any(match["certain"] for match in types)


def _unheaded(source: Input, sample: Sequence[SampleRow], names: list[str] | None) -> Header:
    width = len(sample[0].cells)
    while width > 1 and not sample[0].cells[width - 1].strip():
        width -= 1
    given = names is not None
    if names is None:
        names = ["text"] if width == 1 else [f"column {index}" for index in range(1, width + 1)]
    advice = None
    if not source.columns.names_text(names):
        advice = f"name the columns with {_guessed([row.cells for row in sample])}"
    if source.columns.names_text(sample[0].cells):
        reason = "names the columns, and as a row it would be spoken: remove --no-header"
        source.faults.add(sample[0].line, None, reason, cause="header as data", fatal=True)
    layout = source.columns.read_header(names, sample[0].line, skipped=SKIPPED, advice=advice)
    return Header(replace(layout, named_by="--columns names" if given else "the first row has"), 0, [])


def _advice(source: Input, sample: Sequence[SampleRow]) -> str | None:
    """What to do about a first row without a column for the text. If it has one only because `--column` maps a text to
    it, that is reported."""
    columns, cells = source.columns, sample[0].cells
    following = [row.cells for row in sample[1:]]
    if columns.names_text(cells):
        if columns.mapped_to("text") and _is_data(cells, following):
            names = [columns.field_named(cell) or SKIPPED for cell in cells]
            reason = (
                "looks like a row of the table, and as the header it would not be spoken: pass "
                f"{_options(names)}; if it is the header, pass --header-row {sample[0].number}"
            )
            source.faults.add(sample[0].line, None, reason, cause="data as header", fatal=True)
        return None
    header = _named_row(sample, columns) or _below_titles(sample)
    if header is not None:
        source.faults.suggest(options := _header_row(sample, header, columns))
        return f"row {header.number} looks like the header: pass {options}"
    if _is_data(cells, following):
        return f"the first row looks like data, not like the header: pass {_guessed([cells, *following])}"
    return None


def _header_row(sample: Sequence[SampleRow], header: SampleRow, columns: Columns) -> str:
    """The options with which this row is the header, and the columns of the texts and ids are named if need be."""
    options = f"--header-row {header.number}"
    if not columns.names_text(header.cells):
        below = [one.cells for one in sample if one.number > header.number]
        options = " ".join([options, *suggested_options(columns, with_first_named(header.cells), below)[:1]])
    voice = voice_column(header.cells)
    if voice is not None and not any(columns.field_named(cell) == "voice" for cell in header.cells):
        options += f" --column {shlex.quote(f'voice={voice.strip()}')}"
    return options


def _named_row(sample: Sequence[SampleRow], columns: Columns) -> SampleRow | None:
    """The first row below the first that names the text, and is no row of the table: no prose, and not repeated."""
    for index, row in enumerate(sample):
        named = [position for position, cell in enumerate(row.cells) if columns.field_named(cell) == "text"]
        repeated = any(one.cells[at : at + 1] == [row.cells[at]] for one in sample[index + 1 :] for at in named)
        if index and columns.names_text(row.cells) and not repeated and not any(map(is_prose, row.cells)):
            return row
    return None


def _below_titles(sample: Sequence[SampleRow]) -> SampleRow | None:
    """The first row with several cells, below rows that have only one; or with more than any row above, and at least as
    many as any below."""
    filled = [sum(map(bool, map(str.strip, row.cells))) for row in sample]
    index = next((index for index, number in enumerate(filled) if number > 1), 0)
    if not index:
        most = max(filled)
        index = next(index for index, number in enumerate(filled) if number == most)
        index = index if most > max(filled[:index], default=most) else 0
    below = [row.cells for row in sample[index + 1 :]]
    return sample[index] if index and below and not _is_data(sample[index].cells, below) else None


def _is_data(cells: Sequence[str], following: Sequence[Sequence[str]]) -> bool:
    """Whether the first row of a table looks like the rows below: prose, or words and numbers formed as theirs."""
    if any(map(is_prose, cells)) or _is_sentence(cells):
        return True
    if len(cells) == 1 and begin_with_ids([cells[0], *(row[0] for row in following if row)]):
        return True
    for index, cell in enumerate(cells):
        below = [row[index].strip() for row in following if index < len(row) and row[index].strip()]
        if below and re.search(r"\d", cell) and all(_is_formed_as(cell.strip(), other) for other in below):
            return True
    return False


def _is_sentence(cells: Sequence[str]) -> bool:
    """Whether the cells are the parts of a sentence with commas."""
    goes_on = all(cell.startswith(" ") for cell in cells[1:])
    return len(cells) > 1 and goes_on and is_prose(",".join(cells))


def _is_formed_as(cell: str, other: str) -> bool:
    """Whether both consist of the same kinds of characters; numbers also have about the same length."""
    if cell.isdecimal() and other.isdecimal():
        return abs(len(cell) - len(other)) <= 1
    return form(cell) == form(other)


def _guessed(rows: Sequence[Sequence[str]]) -> str:
    """The options with which these rows, of a file without a header, are read."""
    is_ragged = len(set(map(len, rows))) > 1
    if is_ragged or all(map(_is_sentence, rows)):
        return f"{_options(['text'])} --delimiter tab, if each line is one text"
    if all(len(row) == 1 for row in rows) and begin_with_ids([row[0] for row in rows]):
        named, alone = _options(["id", "text"]), _options(["text"])
        return f"{named} once a tab follows what looks like the id in each line; or, to speak it all, {alone}"
    first, *others = [_options(_guess(rows, text)) for text in _text_columns(rows)]
    return f"{first}{or_others(others)}"


def _text_columns(rows: Sequence[Sequence[str]]) -> list[int]:
    """The columns that may be the text of these rows: that with the longest texts, then others that are prose."""
    columns = [[row[index].strip() for row in rows] for index in range(len(rows[0]))]
    order = sorted(range(len(columns)), key=lambda index: (-sum(map(len, columns[index])), -index))
    return [index for index in order if index == order[0] or 2 * sum(map(is_prose, columns[index])) >= len(rows)]


def _guess(rows: Sequence[Sequence[str]], text: int) -> list[str]:
    """Names for the columns of these rows, given that of the text: the first unique words are the id."""
    names = [SKIPPED] * len(rows[0])
    names[text] = "text"
    for index, name in enumerate(names):
        words = [row[index].strip() for row in rows]
        if name == SKIPPED and len(set(words)) == len(words) and all(map(is_id, words)):
            names[index] = "id"
            break
    return names


def _options(names: Sequence[str]) -> str:
    more = [f"{SKIPPED}..."] if len(names) > _WIDTH_LISTED else []
    return f"--no-header --columns {','.join([*names[:_WIDTH_LISTED], *more])}"
