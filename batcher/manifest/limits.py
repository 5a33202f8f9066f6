"""Limits of what is read from a manifest, so that no file exhausts the memory; `batcher help security` lists them."""

from __future__ import annotations

from typing import Final

MAX_LINE_CHARACTERS: Final = 1 << 23
"""Characters of a line, and of a cell that spans lines."""
MAX_TEXT_CHARACTERS: Final = 1 << 20
"""Characters of a text that spans lines: a paragraph of prose or Markdown, or the strings of an entry in PO."""
MAX_COLUMNS: Final = 16_384
"""Columns of a table, and different names in the objects of JSONL: as many as a spreadsheet can have."""
MAX_FOLDERS: Final = 32
"""Folders in the path of an output."""
MAX_DOCUMENT_BYTES: Final = 1 << 25
"""Bytes of a JSON document, which is held in memory as a whole."""
MAX_PIPED_BYTES: Final = 1 << 31
"""Bytes of a manifest on standard input, which is copied to a temporary file if it is a pipe."""
MAX_UNPACKED_BYTES: Final = 1 << 31
"""Bytes of a compressed manifest once it is unpacked into a temporary file."""
MAX_WORKBOOK_FILE_BYTES: Final = 1 << 27
"""Bytes of a workbook's file, which is held in memory as a whole."""
MAX_WORKBOOK_BYTES: Final = 1 << 29
"""Bytes of all parts of a workbook once they are unpacked in memory."""
MAX_RATIO: Final = 100
"""How many times larger a part of a workbook may become when it is unpacked. Texts and tables become 3 to 30 times
larger, archives made to exhaust memory up to 1,000 times."""
MAX_LISTING_BYTES: Final = 1 << 20
"""Bytes of the parts that list a workbook's sheets."""
MAX_SPARSE_CELLS: Final = 1 << 22
"""Cells of a sheet's area, width times height, of which most may be blank: calamine allocates 24 bytes for each."""
MAX_BLANK_SHARE: Final = 8
"""In a larger area, how many cells there may be for each that is filled."""
MAX_COPIED_CHARACTERS: Final = 1 << 23
"""Characters of an .ods workbook that are not in the file: repeated cells, and spaces that are stored as a count."""
MAX_OLD_SHEET_BYTES: Final = 96 << 20
"""Estimated bytes of memory that a sheet of an .xls workbook takes: its area, blank cells included, and its texts."""
MAX_OLD_RECORDS: Final = 1 << 16
"""Records of an .xls workbook that are none of cells: formats, and the pieces of the list of texts, of 8 KiB each."""


class TooLargeError(ValueError):
    """A workbook exceeds a limit; the message names the part that is too large."""
