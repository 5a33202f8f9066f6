"""Retakes: another take of a row, or back to one that exists; its audio then replaces the file at the row's output."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from batcher.address import home_of
from batcher.audio.stores import Stores
from batcher.clock import Clock
from batcher.errors import ManifestError, UsageError
from batcher.item import State
from batcher.ledger.imports.parse_options import last_parse_options
from batcher.ledger.ledger import Connection, Ledger, open_locked
from batcher.ledger.lifecycle import collection, decisions
from batcher.ledger.queries import manifest_paths, names
from batcher.ledger.queries.batches import current_batches
from batcher.ledger.queries.identity import identity
from batcher.ledger.queries.outputs import output_of
from batcher.ledger.records import Batch, Output
from batcher.maintenance.decisions import person
from batcher.manifest.reader import explicit_takes
from batcher.pipeline.linking import Linker
from batcher.reports.marks import Mark, read_marks
from batcher.settings import Settings

STALE: Final = "already retaken since it was marked; skipped"
"""Message about a marked row that has another take by now."""
_Rows = list[tuple[Batch, str]]
"""Batch and id of each row."""
_Outcome = tuple[int | None, str]
"""The take that a row uses now, None if it was skipped; and a message about it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retake:
    """Outcome of a row's retake: its `take` from now on (None if it was skipped), and a `message` about it."""

    batch: str
    id: str
    take: int | None = None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a listener has noted about a row."""

    batch: str
    id: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedRetakes:
    """Outcomes of the rows that a marks file marks for a retake, and its notes on any rows."""

    outcomes: list[Retake]
    notes: list[Note]


async def retake(
    settings: Settings, ids: Sequence[str], *, take: int | None = None, batch: str | None = None
) -> list[Retake]:
    """Let the next run create another take of done rows and pay for it; or switch back to `take`, at no cost.

    Rows are named by their ids, or by the beginning of an item's key for all rows that share it.

    Raises:
        UsageError: a name matches no row of the batch.
        LockedError: a run holds the ledger.
    """
    if not ids:
        raise UsageError("name at least one row")
    with open_locked(settings.ledger, settings.world) as ledger:
        return await _retake(ledger, await ledger.do(_named, ids, batch), take)


async def retake_marked(settings: Settings, marks: Path, *, batch: str | None = None) -> MarkedRetakes:
    """Retake the rows that are marked in a file exported from a report page, except those retaken since.

    Raises:
        UsageError: it is not a marks file of this ledger.
        LockedError: a run holds the ledger.
    """
    with open_locked(settings.ledger, settings.world) as ledger:
        marked, rows, stale = await ledger.do(_marked, marks, batch)
        outcomes = [Retake(batch=mark.batch, id=mark.id, message=STALE) for mark in stale]
        outcomes += await _retake(ledger, rows, None)
    notes = [Note(batch=mark.batch, id=mark.id, note=mark.note.strip()) for mark in marked if mark.note.strip()]
    return MarkedRetakes(outcomes=outcomes, notes=notes)


def _named(conn: Connection, ids: Sequence[str], batch: str | None) -> _Rows:
    batches = {one.batch_id: one for one in current_batches(conn)}
    return [(batches[number], row_id) for number, _, row_id in names.find_rows(conn, ids, batch=batch)]


def _marked(conn: Connection, path: Path, batch: str | None) -> tuple[list[Mark], _Rows, list[Mark]]:
    """The marks of the file, the rows that are marked for a retake, and the marks of rows retaken since."""
    found: _Rows = []
    stale = []
    batches = {one.batch_id: one for one in current_batches(conn)}
    marks = [one for one in read_marks(path, identity(conn).ledger_id) if batch in (None, one.batch)]
    for mark in marks:
        if mark.mark != "retake":
            continue
        number = names.row_with(conn, mark.batch, mark.id, mark.key)
        if number is None:
            stale.append(mark)
        else:
            found.append((batches[number], mark.id))
    return marks, found, stale


async def _retake(ledger: Ledger, rows: _Rows, take: int | None) -> list[Retake]:
    own = await ledger.do(_manifest_takes, rows)
    retakes = _Retakes(ledger=ledger, clock=Clock())
    outcomes = []
    found: _Outcome
    for batch, row_id in rows:
        if (named := own.get((batch.batch_id, row_id))) is not None:
            found = None, f"the manifest sets take {named}; change it there, and the next run creates the new take"
        elif take is None:
            found = await retakes.request(batch, row_id)
        else:
            found = await retakes.switch(batch, row_id, take)
        outcomes.append(Retake(batch=batch.name, id=row_id, take=found[0], message=found[1]))
    return outcomes


def _manifest_takes(conn: Connection, rows: _Rows) -> dict[tuple[int, str], Any]:
    """The takes that manifests set for these rows; manifests that cannot be read are ignored."""
    found: dict[tuple[int, str], Any] = {}
    for batch in {one.batch_id: one for one, _ in rows}.values():
        path, rules = Path(manifest_paths.source_of(conn, batch)[0]), last_parse_options(conn, batch)
        with suppress(ManifestError):
            found |= {(batch.batch_id, row_id): take for row_id, take in explicit_takes(path, rules)}
    return found


@dataclass(kw_only=True)
class _Retakes:
    """Changes the takes of rows in a locked ledger. Each method returns the outcome."""

    ledger: Ledger
    clock: Clock

    async def request(self, batch: Batch, row_id: str) -> _Outcome:
        """Let the next run create another take of the row."""
        at, who = self.clock.now(), person()
        made = await self.ledger.do(decisions.retake, batch.batch_id, row_id, at=at, who=who)
        if made is None:
            return None, "not done yet; skipped"
        if made.is_new:
            return made.take, f"take {made.take}: the next run creates and pays for it"
        next_step = {State.PENDING: "the next run creates it once", State.DONE: "the next run links it"}
        what = next_step.get(made.state, f"it is {made.state}")
        return made.take, f"take {made.take}, shared with another row with the same inputs: {what}"

    async def switch(self, batch: Batch, row_id: str, take: int) -> _Outcome:
        """Let the row use an existing take, and put its audio at the row's output. Costs nothing."""
        at, who = self.clock.now(), person()
        used = await self.ledger.do(decisions.switch_take, batch.batch_id, row_id, take, at=at, who=who)
        if used is None:
            return None, f"there is no paid take {take} of its text, voice and parameters; skipped"
        return take, await self._linked(batch, row_id, take, used.state)

    async def _linked(self, batch: Batch, row_id: str, take: int, state: State) -> str:
        """Link the take that the row uses now, if that is possible yet. Returns what became of it."""
        if state is not State.DONE:
            return f"take {take}: the next run collects it; nothing is charged"
        output = await self.ledger.do(_stable_output, batch, row_id)
        if output is None:
            return f"take {take}: the next run links it; nothing is charged"
        if (why := await self._link(output)) is not None:
            return f"take {take}: not linked yet, since {why}"
        return f"take {take} is at {output.output}; nothing is charged"

    async def _link(self, output: Output) -> str | None:
        stores = Stores(home_of(self.ledger.address))
        linker = Linker(ledger=self.ledger, stores=stores, store=stores.at(output.out_dir))
        [(_, why)] = await linker.link([output])
        if why is None:
            link = (output.batch_id, output.row_id, output.key, output.output)
            await self.ledger.do(collection.record_links, [link], at=self.clock.now())
        return why


def _stable_output(conn: Connection, batch: Batch, row_id: str) -> Output | None:
    """The row's output; None if its path depends on the take, and so on the next import."""
    template = last_parse_options(conn, batch).filename
    return None if "{take" in template or "{key" in template else output_of(conn, batch, row_id)
