"""Retakes: another take of a row, or back to one that exists; its audio then replaces the file at the row's output."""

from __future__ import annotations

from dataclasses import dataclass

from batcher.audio.stores import Stores
from batcher.clock import Clock
from batcher.item import State
from batcher.ledger.imports.parse_options import last_parse_options
from batcher.ledger.ledger import Connection, Ledger
from batcher.ledger.lifecycle import collection, decisions
from batcher.ledger.queries.outputs import output_of
from batcher.ledger.records import Batch, Output
from batcher.maintenance.decisions import person
from batcher.pipeline.linking import Linker


@dataclass(frozen=True, slots=True, kw_only=True)
class Retake:
    """Outcome of a row's retake: its `take` now (None if it did not change), and a `message` about it."""

    take: int | None = None
    message: str


@dataclass(kw_only=True)
class Retakes:
    """Changes the takes of rows in one ledger. The caller holds the owner's lock. Each method returns the outcome."""

    ledger: Ledger
    clock: Clock

    async def request(self, batch: Batch, row_id: str) -> Retake:
        """Let the next run create another take of the row."""
        at, who = self.clock.now(), person()
        made = await self.ledger.do(decisions.retake, batch.batch_id, row_id, at=at, who=who)
        if made is None:
            return Retake(message="not done yet; skipped")
        if made.is_new:
            return Retake(take=made.take, message=f"take {made.take}: the next run creates and pays for it")
        next_step = {State.PENDING: "the next run creates it once", State.DONE: "the next run links it"}
        what = next_step.get(made.state, f"it is {made.state}")
        shared = f"take {made.take}, shared with another row with the same inputs: {what}"
        return Retake(take=made.take, message=shared)

    async def switch(self, batch: Batch, row_id: str, take: int) -> Retake:
        """Let the row use an existing take, and put its audio at the row's output. Costs nothing."""
        at, who = self.clock.now(), person()
        used = await self.ledger.do(decisions.switch_take, batch.batch_id, row_id, take, at=at, who=who)
        if used is None:
            return Retake(message=f"there is no paid take {take} of its text, voice and parameters; skipped")
        return Retake(take=take, message=await self._linked(batch, row_id, take, used.state))

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
        stores = Stores(self.ledger.path.parent)
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
