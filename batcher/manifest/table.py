"""Turns the cells of a table, from a text file or a sheet, into records."""

from __future__ import annotations

from typing import Final

from batcher.manifest.columns import Layout
from batcher.manifest.faults import Problem, literal
from batcher.manifest.rows import Record
from batcher.manifest.storable import is_storable, unstorable

EMPTY: Final = "empty: the first line must name the columns"
_STRAY: Final = Problem(
    field=None, cause="stray", reason="a cell without a column contains a NUL or a broken character: clear it"
)


def table_record(number: int, line: int, cells: list[str], layout: Layout, content: str) -> Record:
    record = Record(number, line)
    width = layout.width
    if len(cells) < width:
        cells += [""] * (width - len(cells))
    if not is_storable(content):
        named = layout.fields + layout.carried
        record.problems = unstorable({name: cells[index] for name, index in named}) or [_STRAY]
        return record
    if len(cells) > width and any(cell.strip() for cell in cells[width:]):
        reason = (
            f"{len(cells)} cells, but the header has {width} columns: quote cells that contain the delimiter,"
            " or name the extra columns"
        )
        record.problems.append(Problem(field=None, cause="surplus", reason=reason))
        return record  # its cells may be in the wrong columns
    for field, index in layout.fields:
        cell = cells[index].strip()
        if cell:
            record.given[field] = cell
    record.extra = {header: cells[index] for header, index in layout.carried}
    for index in layout.unnamed:
        if cells[index].strip():
            where = f"in column {index + 1}, which has no name"
            reason = f"{literal(cells[index])} is {where}: name the column or clear the cell"
            record.problems.append(Problem(field=None, cause=f"unnamed {index}", reason=reason))
    return record
