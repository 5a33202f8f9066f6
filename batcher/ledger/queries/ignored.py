"""Parameters that models charged for and ignored, according to the API's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, func, select

from batcher.formatting import amount, counted
from batcher.ledger.records import Batch
from batcher.ledger.storage.filters import of_attempt
from batcher.ledger.storage.planner import IGNORED
from batcher.ledger.storage.schema import attempts, items, tasks


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """Tasks for which one model ignored the same parameters, and their reported cost; None if none reports it."""

    parameters: str  # separated by commas
    model: str | None
    tasks: int
    credits: float | None

    def line(self) -> str:
        """The fact in one line, for people."""
        names = ", ".join(self.parameters.split(","))
        cost = "" if self.credits is None else f", which cost {amount(self.credits)} credits"
        return f"{self.model or 'the default model'} ignored {names} in {counted(self.tasks, 'task')}{cost}"


def ignored_in_run(conn: Connection, run_id: str) -> list[Ignored]:
    """What models ignored in the tasks that this run created."""
    return _ignored(conn, attempts.c.run_id == run_id)


def ignored_in(conn: Connection, chosen: Sequence[Batch]) -> list[Ignored]:
    """What models ignored in the tasks that were created for these batches."""
    return _ignored(conn, attempts.c.batch_id.in_([batch.batch_id for batch in chosen]))


def names(ignored: str | None) -> list[str] | None:
    """The stored names of ignored parameters as a list; None if there are none."""
    return ignored.split(",") if ignored else None


def _ignored(conn: Connection, which: ColumnElement[bool]) -> list[Ignored]:
    # Nearly every ledger has none, and then a run need not go through all of its attempts.
    if conn.execute(select(tasks.c.task_id).where(IGNORED.of(tasks)).limit(1)).first() is None:
        return []
    cost = func.sum(func.coalesce(tasks.c.credits, attempts.c.credits))
    query = (
        select(tasks.c.ignored, items.c.model, func.count(), cost)
        .select_from(attempts.join(tasks, of_attempt).join(items, items.c.key == attempts.c.item_key))
        .where(which, IGNORED.of(tasks))
        .group_by(tasks.c.ignored, items.c.model)
        .order_by(func.count().desc(), tasks.c.ignored, items.c.model.nulls_first())
    )
    return [Ignored(parameters=row[0], model=row[1], tasks=row[2], credits=row[3]) for row in conn.execute(query)]
