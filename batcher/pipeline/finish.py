"""The end of a run: results written, the run noted in its ledger, and all of it told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from batcher.audio.store import Store, stamp
from batcher.clock import Clock
from batcher.errors import StorageError
from batcher.formatting import counted
from batcher.item import NEEDS_ATTENTION, UNFINISHED, State
from batcher.ledger.ledger import Connection, Ledger
from batcher.ledger.lifecycle import recalled, runs
from batcher.ledger.money import spending
from batcher.ledger.queries import item_counts, outputs, status
from batcher.ledger.queries.item_counts import Counts
from batcher.ledger.records import Batch, Halt
from batcher.ledger.storage import cached_facts
from batcher.pipeline import restore
from batcher.pipeline.delivery import SWEPT, sweep
from batcher.pipeline.ingest import Ingest
from batcher.pipeline.stop import Reason, Stop
from batcher.provider.answers import Profile
from batcher.reports import results, run_report, summary
from batcher.reports.progress import Progress
from batcher.reports.tally import Tally
from batcher.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Finish:
    """What one run leaves behind: profiles it read, halts it met, keys of overdue items; how the last one ended."""

    settings: Settings
    ledger: Ledger
    store: Store
    progress: Progress
    clock: Clock
    run_id: str
    started_at: float
    stop: Stop
    tally: Tally
    ingest: Ingest
    profiles: list[Profile]
    halts: list[Halt]
    overdue: list[str]
    last_end: tuple[int | None, str | None]

    async def tell(self) -> run_report.RunReport:
        """Write the results, note the end of the run, and say how it went."""
        self.progress.close()
        try:
            result = await self._conclude()
            await self.ledger.do(self._tell, result)
            return result
        except StorageError as error:
            # What was bought is in the spill file by now; this is said even if nothing more can be written.
            message = self.stop.reasons.get(Reason.TROUBLE, error.one_line())
            self.progress.warn(f"exit 8: {message}")
            return self._report(8, message)

    async def _conclude(self) -> run_report.RunReport:
        if not self.stop.interrupted and not await self.ledger.do(cached_facts.get, SWEPT):
            await sweep(self.ledger, self.store)
        written = await self.ledger.do(self._write_results)
        here = [batch.name for batch in self.ingest.named if batch.out_dir == self.store.out_dir]
        written = [name for name in written if name in here]
        owner = self.store.owner()
        if written and owner is not None and owner.run_id == self.run_id:
            await restore.sign(self.ledger, self.store, self.run_id, written, whole=True)
        await self.ledger.do(self._leave)
        counts = await self.ledger.do(item_counts.count, self.ingest.named)
        await self.ledger.do(self._note_halts, counts)
        refused, unwritten = self.ingest.refused, self.tally.unwritten
        named = bool(self.settings.sources)
        code, message = conclude(self.stop, counts, refused=refused, unwritten=unwritten, rows_named=named)
        message += await self.ledger.do(summary.overdue_message, self.ingest.named, self.overdue)
        credits_ = await self.ledger.do(self._credits)
        result = self._report(code, message, counts=counts, credits_=credits_)
        await self.ledger.do(self._note_end, result)
        await self.ledger.do(status.look_ahead)
        return result

    def _report(
        self,
        code: int,
        message: str,
        *,
        counts: item_counts.Counts | None = None,
        credits_: dict[str, float | None] | None = None,
    ) -> run_report.RunReport:
        found: dict[str, Any] = {}
        if counts is not None:
            found = {"rows": counts.rows, "items": counts.items, "states": counts.states, "credits": credits_}
            found |= {"batches": [batch.name for batch in self.ingest.named], "halt": run_report.halt_of(self.halts)}
        return run_report.RunReport(
            run_id=self.run_id,
            exit_code=code,
            outcome=run_report.OUTCOMES[code],
            message=message,
            ledger=str(self.settings.ledger),
            out_dir=str(self.settings.out_dir),
            created=self.tally.created,
            collected=self.tally.collected,
            requests=self.tally.requests(),
            elapsed_seconds=round(self.clock.now() - self.started_at, 3),
            **found,
        )

    def _write_results(self, conn: Connection) -> list[str]:
        """Returns the batches whose results are written: none while old ones tell what the ledger does not know yet."""
        if recalled.due(conn):
            return []
        written = []
        for batch in self.ingest.named:
            out_dir = self.settings.ledger.parent / batch.out_dir
            try:
                self._write(conn, batch, out_dir)
                written.append(batch.name)
            except OSError as error:
                self.tally.unwritten += 1
                message = f"cannot write the results of {batch.name}: {error.strerror}"
                self.stop.reasons.setdefault(Reason.TROUBLE, message)
        return written

    def _write(self, conn: Connection, batch: Batch, out_dir: Path) -> None:
        """Write the results of the batch, unless they lie there as they were written and nothing has changed since."""
        name = f"results {batch.batch_id}"
        paths = results.results_paths(out_dir, [batch.name])
        known = cached_facts.get(conn, name)
        if self.settings.rescan or known is None or known != [stamp(path) for path in paths]:
            results.write_results(out_dir, batch.name, outputs.results(conn, batch))
            cached_facts.put(conn, name, "rows", [stamp(path) for path in paths])

    def _leave(self, conn: Connection) -> None:
        if self.ingest.refused is None and not self.tally.unwritten:
            self.ingest.leave(conn)

    def _note_halts(self, conn: Connection, counts: item_counts.Counts) -> None:
        for halt in self.halts:
            reason = Reason.CREDITS if halt.kind == "credits" else Reason.TROUBLE
            need = spending.next_need(conn, self.ingest.named)
            now = self.profiles[-1].balance if self.profiles else None
            self.stop.reasons.setdefault(reason, summary.halt_line(halt, counts, balance=now, need=need))

    def _credits(self, conn: Connection) -> dict[str, float | None]:
        start = self.profiles[0].balance if self.profiles else None
        end = self.profiles[-1].balance if len(self.profiles) > 1 else None
        spent, known = spending.spent_in_run(conn, self.run_id)
        if not known:
            spent = start - end if start is not None and end is not None else None
        needed = spending.estimated_need(conn, self.ingest.named)
        return {"start": start, "end": end, "spent": spent, "estimated_needed": needed}

    def _note_end(self, conn: Connection, result: run_report.RunReport) -> None:
        values: dict[str, Any] = {"ended_at": self.clock.now(), "exit_code": result.exit_code}
        values |= {"outcome": result.outcome, "message": result.message}
        values |= {"created": result.created, "collected": result.collected}
        runs.end_run(conn, self.run_id, **values)

    def _tell(self, conn: Connection, result: run_report.RunReport) -> None:
        counts = item_counts.count(conn, self.ingest.named)
        where, hints = self.settings.ledger_options, self.ingest.hints
        words = summary.SummaryInput(result, counts, where=where, last=self.last_end, hints=hints)
        summary.tell(conn, self.progress, words, self.ingest.named)


_EXITS: Final = {Reason.CREDENTIALS: 5, Reason.CREDITS: 4, Reason.TROUBLE: 8, Reason.ASKED: 6}


def conclude(stop: Stop, counts: Counts, *, refused: str | None, unwritten: int, rows_named: bool) -> tuple[int, str]:
    """Exit code and message of a run that came to its end.

    The first that applies, in the order of the table of exit codes; a reason to stop counts only while it leaves
    something undone. `refused` says why the manifest was not taken; `unwritten` counts outputs and results files that
    could not be written. Where no manifest was named (`rows_named`), what waits to be created was not asked for.
    """
    unfinished = sum(counts.states[state] for state in UNFINISHED if rows_named or state is not State.PENDING)
    if stop.interrupted:
        return 130, "interrupted; answers that had come are recorded"
    if refused is not None:
        return 2, refused
    for reason in sorted(stop.reasons):
        if unfinished or unwritten or reason is Reason.CREDENTIALS:
            return _EXITS[reason], stop.reasons[reason]
    if unfinished:
        return 6, f"{counted(unfinished, 'item')} still to be finished"
    if unwritten:
        return 8, f"{counted(unwritten, 'output')} could not be written"
    if not rows_named:
        return 0, "every open task is collected"
    waiting = sum(counts.states[state] for state in NEEDS_ATTENTION)
    if waiting or counts.invalid:
        parts = [counted(waiting, "item")] * bool(waiting)
        parts += [counted(counts.invalid, "invalid row")] * bool(counts.invalid)
        return 3, f"finished; a person is needed for {' and '.join(parts)}"
    return 0, "every row is done or settled"
