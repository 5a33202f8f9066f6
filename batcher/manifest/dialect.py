"""Decides how a delimited text file is read: its delimiter, its use of quotes, and the lines before its table."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final

from batcher.errors import ManifestError
from batcher.manifest import anki, limits
from batcher.manifest.header import SAMPLE_ROWS, SAMPLE_SIZE, SampleRow
from batcher.manifest.input import Input
from batcher.manifest.quoting import encloses, escapes_quotes, opens_after_space, with_doubled
from batcher.manifest.rules import DELIMITER_NAMES
from batcher.manifest.stream import SAVE_AS, Lines, bounded

DELIMITERS: Final = ",;\t|"
QUOTES_HINT: Final = "If quotes in this file are part of the texts, pass --quotes off."
_BLANK: Final = f'{DELIMITERS}" \r\n'
"""Characters of which a line without content consists."""
_SAMPLE_LINES: Final = 100
_SEP: Final = re.compile(r'"?sep=(.)"?[;,\t ]*\r?\n?', re.IGNORECASE)
_QUOTED: Final = re.compile(r'"[^"]*("|$)')


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How to take a file apart. `skipped` lines stand before the table; `export` is what those of an Anki export say.

    `enclosing` is whether quotes enclose cells, `spaced` whether also behind a space, `escaping` whether a backslash
    marks a quote within a cell, and `guarded` whether a quoted cell that seems to contain rows is a fault.
    """

    delimiter: str
    enclosing: bool
    spaced: bool
    escaping: bool
    guarded: bool
    skipped: int
    export: anki.Export | None

    def rows(self, lines: Lines) -> Iterator[list[str]]:
        """The cells of each row, blank rows included, after the skipped lines.

        Raises, when iterated:
            csv.Error: a row is not valid CSV. The iterator can go on after it.
        """
        csv.field_size_limit(limits.MAX_LINE_CHARACTERS)
        source = map(with_doubled, lines) if self.escaping else iter(lines)
        for _ in islice(source, self.skipped):
            pass
        if self.enclosing:
            return csv.reader(source, delimiter=self.delimiter, strict=True, skipinitialspace=self.spaced)
        return csv.reader(source, delimiter=self.delimiter, quoting=csv.QUOTE_NONE, strict=True)


def is_stated(line: str) -> bool:
    """Whether a first line states how the file is delimited: `sep=;`, or that of an Anki export."""
    return _SEP.fullmatch(line) is not None or anki.is_directive(line)


def decide(source: Input) -> Dialect:
    """Look ahead at the file, and note what is not obvious about it.

    Raises:
        ManifestError: the encoding is unusable.
    """
    with source.lines_ahead() as ahead:
        first = list(bounded(iter(ahead), _SAMPLE_LINES))
    export = anki.read(first) if first and anki.is_directive(first[0]) else None
    sep = _SEP.fullmatch(first[0]) if first else None
    skipped = export.count if export is not None else int(sep is not None)
    stated = (export.delimiter if export is not None else None) or (sep[1] if sep else None)
    delimiter = source.rules.delimiter or stated or _delimiter(source, first[skipped:])
    escaping = _found(source, '\\"', partial(escapes_quotes, delimiter=delimiter))
    quotes = _quotes(source, delimiter, skipped, escaping=escaping)
    spaced = quotes is not False and _found(source, f'{delimiter} "', partial(opens_after_space, delimiter=delimiter))
    quotes = quotes or spaced or quotes
    notes = [f"delimiter {DELIMITER_NAMES.get(delimiter, delimiter)}"] if delimiter != "," else []
    if quotes is False or (quotes and notes):
        notes.append("quotes enclose cells" if quotes else "quotes are part of the texts")
    notes += ["quotes also enclose cells behind a space"] if spaced else []
    notes += ['\\" is a quote within a cell'] if escaping else []
    source.notes += ["; ".join(notes)] if notes else []
    return Dialect(
        delimiter=delimiter,
        enclosing=quotes is not False,
        spaced=spaced,
        escaping=escaping,
        guarded=source.rules.quotes is None,
        skipped=skipped,
        export=export,
    )


def sample(source: Input, dialect: Dialect) -> list[SampleRow]:
    """The first rows that are not blank, at least up to the header that `--header-row` names.

    Raises:
        ManifestError: a row up to the header is not valid CSV, or contains NUL bytes.
    """
    found: list[SampleRow] = []
    number, size, header = dialect.skipped, 0, source.rules.header_row or 1
    with source.lines_ahead() as lines:
        rows = dialect.rows(lines)
        while (len(found) < SAMPLE_ROWS and size < SAMPLE_SIZE) or number < header:
            line = lines.seen + 1
            number += 1
            try:
                cells = next(rows, None)
            except csv.Error as error:
                if found and number > header:
                    break
                message = f"{source.name}:{line}: the header is not valid CSV: {error}"
                raise ManifestError(message, [message], QUOTES_HINT) from None
            if cells is None:
                break
            if "\0" in "".join(cells) and not found:
                message = f"{source.name}:{line}: the header contains NUL bytes: the file may be UTF-16"
                raise ManifestError(message, [message], SAVE_AS)
            size += sum(map(len, cells))
            if "".join(cells).strip(_BLANK):
                found.append(SampleRow(number, line, cells))
    return found


def _quotes(source: Input, delimiter: str, skipped: int, *, escaping: bool) -> bool | None:
    """Whether quotes enclose cells; None if no cell begins with one."""
    if source.rules.quotes is not None:
        return source.rules.quotes == "on"
    if not source.contains('"'):
        return None
    with source.lines_ahead() as lines:
        return encloses(islice(map(with_doubled, lines) if escaping else lines, skipped, None), delimiter)


def _found(source: Input, sign: str, use: Callable[[Iterable[str]], bool]) -> bool:
    """Whether the file has this use of quotes, which shows in this sign, unless quotes are said to enclose nothing."""
    if source.rules.quotes == "off" or not source.contains(sign):
        return False
    with source.lines_ahead() as lines:
        return use(lines)


def _delimiter(source: Input, lines: list[str]) -> str:
    """The delimiter of the first line that is not blank: preferably one with which all lines have equally many cells,
    then the one that occurs most often. A comma, or in a .tsv file a tab, if that line has none."""
    plain = [_QUOTED.sub("", line) for line in lines if line.strip(_BLANK)]
    if source.ending == ".tsv" and any("\t" in line for line in plain):
        return "\t"
    counts = {delimiter: [line.count(delimiter) for line in plain] for delimiter in DELIMITERS}
    present = [delimiter for delimiter in DELIMITERS if plain and counts[delimiter][0]]
    if present:
        return max(present, key=lambda one: (len(set(counts[one])) == 1, counts[one][0]))
    default = "\t" if source.ending == ".tsv" else ","
    if not plain or source.columns.names_text([plain[0]]):
        return default
    shared = {one: Counter(filter(None, counts[one])).most_common(1) for one in DELIMITERS}
    usual = {one: found[0][1] for one, found in shared.items() if found and found[0][1] > len(plain) / 2}
    return max(usual, key=lambda one: usual[one], default=default)
