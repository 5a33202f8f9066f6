"""Reads plain text: each line is the text of a row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from batcher.manifest import dialect
from batcher.manifest.columns import Columns
from batcher.manifest.input import Input
from batcher.manifest.rows import Record
from batcher.manifest.stream import bounded
from batcher.manifest.suggestions import begin_with_ids
from batcher.manifest.table import table_record

_SAMPLE_LINES: Final = 100
_IN_PROSE: Final = ",;"
"""Delimiters that prose contains, but hardly without a space after them."""


def records(source: Input) -> Iterator[Record]:
    """A record for each line that is not blank.

    Raises:
        ManifestError: the encoding is unusable.
    """
    if not source.rules.no_header and begin_with_ids(_first_lines(source)):
        reason = (
            "each line begins with what looks like its id, which would be spoken: put a tab behind the ids, and pass "
            "--no-header --columns id,text; or, to speak it all, pass --no-header"
        )
        source.faults.add(1, None, reason, cause="ids", fatal=True)
    source.notes.append("each line is one text")
    layout = source.columns.read_header(["text"], 1)
    count = 0
    for number, line in enumerate(source.lines, 1):
        if source.lines.is_split:
            reason = "a carriage return that ends no line cuts this text in two: remove it"
            source.faults.add(number, None, reason, cause="split", fatal=True)
        text = line.strip()
        if text:
            count += 1
            yield table_record(count if source.rules.counted else number, number, [text], layout, text)
    if not count:
        source.faults.add(None, None, "empty: write one text per line", cause="empty", fatal=True)


def is_plain(source: Input) -> bool:
    """Whether a file that may be a table is none: no option describes a table, and the first lines are not split alike
    by a delimiter, begin with no header and name no delimiter.

    Raises:
        ManifestError: the encoding is unusable.
    """
    rules = source.rules
    if rules.delimiter or rules.quotes or rules.header_row or rules.names or any(rules.columns.values()):
        return False
    filled = _first_lines(source)
    if filled and dialect.is_stated(filled[0]):
        return False
    return not any(_splits(filled, delimiter, source.columns) for delimiter in dialect.DELIMITERS)


def _first_lines(source: Input) -> list[str]:
    with source.lines_ahead() as ahead:
        return [line.strip("\r\n ") for line in bounded(iter(ahead), _SAMPLE_LINES) if line.strip()]


def _splits(lines: Sequence[str], delimiter: str, columns: Columns) -> bool:
    """Whether the lines are probably the rows of a table with this delimiter."""
    for line in lines:
        cells = [cell.strip(' "') for cell in line.split(delimiter)]
        if columns.names_text(cells) and (len(cells) > 1 or line is lines[0]):
            return True
    first = [cell.strip(' "') for cell in lines[0].split(delimiter)] if lines else []
    if len(first) > 1 and any(map(columns.field_named, first)):
        return True
    if delimiter not in _IN_PROSE:
        return sum(delimiter in line for line in lines) > len(lines) / 2
    within = re.compile(rf'[^{delimiter}"]*("[^"]*")?[^{delimiter}"]*{delimiter}\S.*')
    return len(lines) > 1 and all(map(within.match, lines))
