"""Controls which index SQLite uses: conditions of partial indexes, and hints in queries.

The ledger has no statistics (ANALYZE), so SQLite guesses how many rows an index leaves, and guesses badly where one
batch or one account has nearly all of them. `tests/guarantees/test_scale.py` counts the steps of such queries.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Integer, TextClause, literal, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.selectable import NamedFromClause


def without_index(column: ColumnElement[int]) -> ColumnElement[int]:
    """The column in a form for which SQLite uses no index, so that it chooses the index of another condition.

    Without it, these queries read as many rows as the manifest has to find a few:

    * claiming the last pending items went through all rows of the batch, by `rows_order` (batch, current, number),
      instead of going from `items_state` to the rows of each item;
    * outputs to link were searched among all current rows, also by `rows_order`, instead of by `rows_unlinked`;
    * open tasks were searched among all items of the account, by `items_task`, instead of by `items_state`.
    """
    return column + 0


def with_index(column: ColumnElement[int]) -> ColumnElement[bool]:
    """A condition that every positive number meets, so that SQLite considers the index that begins with the column.

    Without it, SQLite scans all `rows` for items to be rechecked instead of using `items_recheck`, and any index that
    begins with the batch may be used instead of `rows_unlinked`.
    """
    return column > 0


def once_known(value: int | None, column: ColumnElement[int]) -> ColumnElement[int]:
    """The value as an expression of another table's column, so that SQLite reads that table first.

    Without it, rows with the ids of a few staged ones are searched among all rows of the batch, by `rows_order`.
    """
    return literal(value, Integer) + column * 0


@dataclass(frozen=True, slots=True)
class IndexCondition:
    """The condition of a partial index, with `{}` before each column.

    SQLite uses such an index only where a query contains the same condition with the same constants, not parameters.
    So queries take it from here, too.
    """

    template: str

    @property
    def of_index(self) -> Condition:
        """The condition as the index has it."""
        return Condition(self._of(""))

    def of(self, table: NamedFromClause) -> TextClause:
        """The condition for a query that reads the table or alias."""
        return Condition(f"({self._of(f'{table.name}.')})")

    def _of(self, prefix: str) -> str:
        return self.template.replace("{}", prefix)


class Condition(TextClause):
    """A condition in SQLite's words."""

    inherit_cache = True


@compiles(Condition, "postgresql")
def _in_postgresql(element: Condition, compiler: Any, **options: Any) -> str:
    words = re.sub(r"\bIS NOT (?!NULL\b)", "IS DISTINCT FROM ", element.text)
    return str(compiler.visit_textclause(text(words), **options))


NOT_PENDING: Final = IndexCondition("{}state <> 'pending'")
"""Items that have a create request behind them, or were abandoned (`items_text`)."""
LATER_TAKE: Final = IndexCondition("{}highest_take > 1")
"""Rows that have used another take than the first (`rows_takes`)."""
UNLINKED: Final = IndexCondition("{}linked_key IS NOT {}item_key OR {}linked_output IS NOT {}output")
"""Rows whose output does not hold the audio of their item (`rows_unlinked`)."""
UNCLEAR: Final = IndexCondition(
    "({}outcome IS NULL OR {}outcome = 'lost' OR {}outcome <> 'accepted' AND {}credits IS NOT NULL)"
)
"""Attempts without an accepted create request that may have cost something (`attempts_unclear`)."""
OPEN_TASK: Final = IndexCondition("{}ended_at IS NULL")
"""Tasks that have not ended (`tasks_open`)."""
IGNORED: Final = IndexCondition("{}ignored IS NOT NULL")
"""Tasks for which the model ignored parameters (`tasks_ignored`)."""
