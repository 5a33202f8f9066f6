"""Turns the cells of a table, from a text file or a sheet, into records."""

from __future__ import annotations

from typing import Final

from batcher.manifest.columns import Layout
from batcher.manifest.faults import NOT_READ, Problem, literal
from batcher.manifest.header import Header
from batcher.manifest.input import Input
from batcher.manifest.rows import Record
from batcher.manifest.storable import is_storable, unstorable

_STRAY: Final = Problem(
    field=None, cause="stray", reason="a cell without a column contains a NUL or a broken character: clear it"
)


def table_record(number: int, line: int, cells: list[str], layout: Layout, content: str) -> Record:
    """The record of a row with these cells, whose concatenation is `content`."""
    record = Record(number, line)
    width = layout.width
    if len(cells) < width:
        cells += [""] * (width - len(cells))
    if not (content.isascii() and "\0" not in content) and not is_storable(content):
        named = layout.fields + layout.carried
        record.problems = unstorable({name: cells[index] for name, index in named}) or [_STRAY]
        return record
    if len(cells) > width and any(cell.strip() for cell in cells[width:]):
        reason = (
            f"{len(cells)} cells, but {layout.named_by} {width} columns: quote cells that contain the delimiter,"
            " or name the extra columns"
        )
        if any(field == "text" for field, _ in layout.fields):  # otherwise, the header is not the right one
            record.problems.append(Problem(field=None, cause="surplus", reason=reason))
        return record  # its cells may be in the wrong columns
    for field, index in layout.fields:
        cell = cells[index].strip()
        if cell:
            record.given[field] = f"{record.given[field]} {cell}" if field in record.given else cell
    record.extra = {header: cells[index] for header, index in layout.carried}
    for index in layout.unnamed:
        if cells[index].strip():
            where = f"in column {index + 1}, which has no name"
            reason = f"{literal(cells[index])} is {where}: name the column or clear the cell"
            record.problems.append(Problem(field=None, cause=f"unnamed {index}", reason=reason))
    return record


def is_second_table(source: Input, header: Header, line: int, cells: list[str], *, after_blank: bool) -> bool:
    """Whether another table begins with this row, which is an error; with `--allow table`, none does.

    The rest of the file is not read then.
    """
    if source.rules.single_table or not header.begins_again(cells, source.columns, after_blank=after_blank):
        return False
    reason = "another table seems to begin here: save each as a file; or, if this is a row, pass --allow table"
    if cells == header.cells:
        reason = (
            "repeats the header, so the file holds several tables: save each as a file; or, if they are one, "
            "pass --allow table"
        )
    source.faults.add(line, None, f"{reason} {NOT_READ}", cause="second table", fatal=True)
    return True
