"""How a manifest is to be read. Imports no reader, so that commands that read no manifest start quickly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

PARSE_OPTIONS: Final = {
    "columns": "--column",
    "encoding": "--encoding",
    "delimiter": "--delimiter",
    "quotes": "--quotes",
    "no_header": "--no-header",
    "names": "--columns",
    "header_row": "--header-row",
    "sheet": "--sheet",
    "single_table": "--allow table",
    "where": "--where",
}
"""The rules that determine how a file is parsed, and the option that sets each. They are remembered with the batch."""
DELIMITER_NAMES: Final = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "|", " ": "space"}
"""What delimiters are called in messages; `--delimiter` accepts these names."""


def delimiter(value: str) -> str:
    """One character, or that which has this name, such as `tab`.

    Raises:
        ValueError: it is none that can separate cells.
    """
    found = next((mark for mark, name in DELIMITER_NAMES.items() if value.lower() == name), value)
    if len(found) != 1 or found in '"\r\n':
        raise ValueError(f"{value!r} is not a delimiter: use one character, or tab")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How to read a manifest, and the defaults for its rows.

    `columns` maps fields to headers (an empty header unmaps the field), `voices` maps a sheet's voice names to voice
    ids, `takes` maps row ids to the highest take that they have used, where that is not the first; it counts for rows
    that set none.

    Of a delimited file, `delimiter` is one character; `quotes` is "on" if quotes enclose cells, or "off"; None: found
    out. Of a table, `header_row` is the number of the row that names the columns, None for the first; with `no_header`
    it has none, and `names` are those of its columns. With `single_table`, what looks like the header of another table
    is a row, and a repeated header is left out. Of a workbook, `sheet` is read, None for the first visible one.
    `counted` numbers records from 1, as the first versions did, and not as spreadsheets do: a batch keeps the numbers
    of its first import, for they name its files.

    `where` are the conditions that rows must meet, as `row_filter` reads them.

    Without a `format`, the extension of a row's file name decides, or it is mp3. `strip` names the types of markup to
    remove from the texts.
    """

    batch: str
    voice: str | None = None
    model: str | None = None
    format: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    voices: Mapping[str, str] = field(default_factory=dict)
    encoding: str | None = None
    delimiter: str | None = None
    quotes: Literal["on", "off"] | None = None
    header_row: int | None = None
    no_header: bool = False
    names: Sequence[str] = ()
    sheet: str | None = None
    single_table: bool = False
    where: Sequence[str] = ()
    counted: bool = False
    filename: str = "{id}.{format}"
    skip_invalid: bool = False
    skip_empty: bool = False
    takes: Mapping[str, int] = field(default_factory=dict)
    strip: tuple[str, ...] = ()
