"""The end of a run: writes the results files, records the end in the ledger, prints the summary."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import Any, Final

import anyio.to_thread

from batcher.audio.store import Store
from batcher.errors import StorageError
from batcher.formatting import counted, rounded
from batcher.item import NEEDS_ATTENTION, UNFINISHED, State
from batcher.ledger.imports.parse_options import rows_left_out
from batcher.ledger.ledger import Connection
from batcher.ledger.lifecycle import restored_rows, runs
from batcher.ledger.money import spending, top_ups
from batcher.ledger.queries import item_counts, outputs, status
from batcher.ledger.queries.item_counts import Counts
from batcher.ledger.records import Batch, Halt
from batcher.ledger.storage import cached_facts
from batcher.ledger.storage.sharing import take_turn
from batcher.pipeline import restore
from batcher.pipeline.context import RunContext
from batcher.pipeline.delivery import SWEPT, sweep
from batcher.pipeline.ingest import Ingest
from batcher.pipeline.outbox import Outbox
from batcher.pipeline.stop import CANCELLED, Reason, Stop
from batcher.provider.answers import Profile
from batcher.reports import results, run_report, summary


@dataclass(frozen=True, kw_only=True)
class Finish:
    """The end of one run: the facts that it reports besides its counts.

    `begun` is when it began, by the steady clock: the time of day may be set meanwhile.
    `profiles` are those that it read, the first and the last of which give its balances; `halts` are open at its end;
    `overdue` are keys of items whose tasks show no progress; `last_end` is the exit code and message of the run before.
    """

    ctx: RunContext
    ingest: Ingest
    outbox: Outbox
    begun: float
    profiles: list[Profile]
    halts: list[Halt]
    overdue: list[str]
    last_end: tuple[int | None, str | None]

    async def report(self) -> run_report.RunReport:
        """Write the results, record the end of the run, and print the summary."""
        self.ctx.progress.close()
        try:
            result = await self._check_ledger(await self._close_run())
            await self.ctx.ledger.do(self._print_summary, result)
        except StorageError as error:
            # Purchases are in the spill file by now; report even if nothing more can be written.
            message = self.ctx.stop.reasons.get(Reason.TROUBLE, error.one_line())
            self.ctx.progress.warn(f"exit 8: {message}")
            result = self._build_report(8, message)
        run_report.log_end(result)
        return result

    async def report_halt(self, halt: Halt) -> None:
        """Put the report as it is at this halt into the outbox."""
        counts = await self.ctx.ledger.do(self.ingest.selection.count, self.ingest.named)
        result = self._with_counts(self._build_report(4 if halt.kind == "credits" else 8, halt.detail), counts)
        await self.ctx.ledger.do(self.outbox.add, "halted", replace(result, halt=run_report.halt_of([halt])))

    async def _check_ledger(self, result: run_report.RunReport) -> run_report.RunReport:
        """The report, with the rescued copy's path if the ledger was deleted or replaced: what it holds was bought."""
        rescued, path = await self.ctx.ledger.rescue(), self.ctx.settings.ledger
        if rescued is None:
            return result
        self.ingest.hints.append(f"To continue with it: mv {shlex.quote(str(rescued))} {shlex.quote(str(path))}")
        message = f"the ledger {path} was deleted or replaced during this run; what it held is in {rescued}"
        hint = "\n".join(self.ingest.hints)
        return replace(result, exit_code=8, outcome=run_report.OUTCOMES[8], message=message, hint=hint)

    async def _close_run(self) -> run_report.RunReport:
        ledger = self.ctx.ledger
        if not self.ctx.stop.interrupted and not await ledger.do(cached_facts.get, SWEPT):
            await sweep(self.ctx)
        written = await self._write_results()
        await ledger.do(self.ingest.record_end, unwritten=self.ctx.tally.unwritten)
        counts = await ledger.do(self.ingest.selection.count, self.ingest.named)
        await ledger.do(self._note_halts, counts)
        result = await self._result(counts)
        await ledger.do(self._note_end, result)
        if ledger.intents is not None:
            ledger.intents.remove()
        await self._mark_folder(written)
        await ledger.do(status.precompute)
        return result

    async def _mark_folder(self, written: list[str]) -> None:
        """Note in the output folder's mark that the run has ended, and the results of these batches are complete."""
        here = [batch.name for batch in self.ingest.named if batch.out_dir == self.ctx.store.out_dir]
        names = [name for name in written if name in here]
        if names:
            await self.ctx.ledger.do(restore.sign, self.ctx, names, ended=True)

    async def _result(self, counts: Counts) -> run_report.RunReport:
        refused, unwritten = self.ingest.refused, self.ctx.tally.unwritten
        named = bool(self.ctx.settings.sources)
        code, message = conclude(
            self.ctx.stop,
            counts,
            refused=refused,
            unread=self.ingest.is_cut_short,
            unwritten=unwritten,
            rows_named=named,
        )
        if code == 0 and self.ingest.selection.is_limited:
            message = "all selected rows are done or settled"
        message += await self.ctx.ledger.do(summary.overdue_message, self.ingest.named, self.overdue)
        return replace(
            self._with_counts(self._build_report(code, message), counts),
            hint="\n".join(self.ingest.hints) or None if code == 2 else None,
            left_out=await self.ctx.ledger.do(rows_left_out, self.ingest.named),
            halt=run_report.halt_of(self.halts),
            credits=await self.ctx.ledger.do(self._credits),
        )

    def _with_counts(self, report: run_report.RunReport, counts: Counts) -> run_report.RunReport:
        return replace(
            report,
            batches=[batch.name for batch in self.ingest.named],
            rows=counts.rows,
            items=counts.items,
            states=counts.states,
            not_selected=self.ingest.selection.others,
        )

    def _build_report(self, code: int, message: str) -> run_report.RunReport:
        """The report without the counts, which need a readable ledger."""
        return run_report.RunReport(
            run_id=self.ctx.run_id,
            exit_code=code,
            outcome=run_report.OUTCOMES[code],
            message=message,
            ledger=str(self.ctx.settings.ledger),
            out_dir=str(self.ctx.settings.out_dir),
            created=self.ctx.tally.created,
            collected=self.ctx.tally.collected,
            requests=self.ctx.tally.requests(),
            elapsed_seconds=round(self.ctx.clock.steady() - self.begun, 3),
        )

    async def _write_results(self) -> list[str]:
        """Returns the batches whose JSONL results are current: none while rows are still to be restored from them."""
        if await self.ctx.ledger.do(restored_rows.due):
            return []
        written = []
        for batch in self.ingest.named:
            try:
                await self._write(batch, self.ctx.stores.at(batch.out_dir))
                written += [batch.name] * ("jsonl" in self.ctx.settings.results)
            except OSError as error:
                self.ctx.tally.unwritten += 1
                message = f"cannot write the results of {batch.name}: {error.strerror}"
                self.ctx.stop.reasons.setdefault(Reason.TROUBLE, message)
        return written

    async def _write(self, batch: Batch, store: Store) -> None:
        """Write the results of the batch, unless neither the batch nor its results files have changed."""
        formats = list(self.ctx.settings.results)
        before = await anyio.to_thread.run_sync(_stamps, store, batch)
        known = await self.ctx.ledger.do(cached_facts.get, _fact(batch))
        if known == [formats, *before] and not self.ctx.settings.rescan:
            return
        await self.ctx.ledger.do(self._write_lines, batch, store)
        await anyio.to_thread.run_sync(store.flush)
        after = await anyio.to_thread.run_sync(_stamps, store, batch)
        await self.ctx.ledger.do(self._note_written, batch, [formats, *after])

    def _write_lines(self, conn: Connection, batch: Batch, store: Store) -> None:
        take_turn(conn, "results")
        if formats := self.ctx.settings.results:
            results.write_results(store, batch.name, outputs.results(conn, batch), formats)
        cached_facts.put(conn, _fact(batch), "rows", self._is_writing)

    def _note_written(self, conn: Connection, batch: Batch, written: list[Any]) -> None:
        """Note that the results are stored, unless a row has changed since they were written."""
        if cached_facts.get(conn, _fact(batch)) == self._is_writing:
            cached_facts.put(conn, _fact(batch), "rows", written)

    @property
    def _is_writing(self) -> str:
        """Fact about the results of a batch, from when they were written until they are stored."""
        return f"being written by {self.ctx.run_id}"

    def _note_halts(self, conn: Connection, counts: item_counts.Counts) -> None:
        for halt in self.halts:
            reason = Reason.CREDITS if halt.kind == "credits" else Reason.TROUBLE
            need = self.ingest.selection.next_need(conn, self.ingest.named)
            now = self.profiles[-1].balance if self.profiles else None
            self.ctx.stop.reasons.setdefault(reason, summary.halt_line(halt, counts, balance=now, need=need))

    def _credits(self, conn: Connection) -> run_report.Credits:
        start = self.profiles[0].balance if self.profiles else None
        end = self.profiles[-1].balance if len(self.profiles) > 1 else None
        spent, known = spending.spent_in_run(conn, self.ctx.run_id)
        topped_up = top_ups.topped_up(conn, run_id=self.ctx.run_id)
        if runs.worked_with_others(conn, self.ctx.run_id):
            spent = spent if known else None  # the balance has paid for them, too
        elif not known:
            spent = start + topped_up - end if start is not None and end is not None else None
        needed = self.ingest.selection.estimated_need(conn, self.ingest.named)
        found = {"start": start, "end": end, "spent": spent, "estimated_needed": needed, "topped_up": topped_up}
        return run_report.Credits(**{name: rounded(number) for name, number in found.items()})

    def _note_end(self, conn: Connection, result: run_report.RunReport) -> None:
        runs.end_run(
            conn,
            self.ctx.run_id,
            ended_at=self.ctx.clock.now(),
            exit_code=result.exit_code,
            outcome=result.outcome,
            message=result.message,
            created=result.created,
            collected=result.collected,
        )
        self.outbox.add(conn, "run ended", result)

    def _print_summary(self, conn: Connection, result: run_report.RunReport) -> None:
        words = summary.SummaryInput(
            result,
            self.ingest.selection.count(conn, self.ingest.named),
            where=self.ctx.settings.ledger_options,
            last=self.last_end,
            hints=self.ingest.hints,
            only_chosen=self.ingest.selection.is_limited,
            cancelled=self.ctx.stop.cancelled,
        )
        summary.print_summary(conn, self.ctx.progress, words, self.ingest.named)
        if self.ingest.selection.is_sample and words.counts.states[State.DONE]:
            self.ctx.progress.say("to listen to the sample, open the page that this command writes:")
            self.ctx.progress.say(f"    {self._report_command()}")

    def _report_command(self) -> str:
        """The command that writes the page on which the batches can be heard."""
        names = [batch.name for batch in self.ingest.named]
        of_batch = ["--batch", *names] if len(names) == 1 else []
        return shlex.join(["batcher", "report", *of_batch, "--ledger", str(self.ctx.settings.ledger)])


def _fact(batch: Batch) -> str:
    """Name of the cached fact about the batch's results files: their formats, and their stamps."""
    return f"results {batch.batch_id}"


def _stamps(store: Store, batch: Batch) -> list[list[int] | str | None]:
    return [store.stamp(name) for name in results.results_names(batch.name)]


_EXITS: Final = {Reason.CREDENTIALS: 5, Reason.CREDITS: 4, Reason.TROUBLE: 8, Reason.ASKED: 6}


def conclude(
    stop: Stop, counts: Counts, *, refused: str | None, unread: bool, unwritten: int, rows_named: bool
) -> tuple[int, str]:
    """Exit code and message of a finished run.

    The first that applies, in the order of the table of exit codes. A reason to stop counts only if it left something
    unfinished. `refused` is why nothing was created; `unread`, whether a manifest was not read to its end; `unwritten`
    counts outputs and results files that could not be written. Without a manifest (`rows_named` is false), pending
    items were not requested.
    """
    unfinished = sum(counts.states[state] for state in UNFINISHED if rows_named or state is not State.PENDING)
    if stop.cancelled:
        return 130 if stop.interrupted else 6, CANCELLED
    if stop.interrupted:
        return 130, "interrupted; answers received so far are recorded"
    if refused is not None:
        return 2, refused
    for reason in sorted(stop.reasons):
        if unfinished or unread or unwritten or reason is Reason.CREDENTIALS:
            return _EXITS[reason], stop.reasons[reason]
    if unfinished:
        return 6, f"{counted(unfinished, 'item')} unfinished"
    if unwritten:
        return 8, f"{counted(unwritten, 'output')} could not be written"
    if not rows_named:
        return 0, "all open tasks are collected"
    waiting = sum(counts.states[state] for state in NEEDS_ATTENTION)
    if waiting or counts.invalid:
        parts = [counted(waiting, "item")] * bool(waiting)
        parts += [counted(counts.invalid, "invalid row")] * bool(counts.invalid)
        verb = "needs" if waiting + counts.invalid == 1 else "need"
        return 3, f"finished; {' and '.join(parts)} {verb} attention"
    return 0, "all rows are done or settled"
