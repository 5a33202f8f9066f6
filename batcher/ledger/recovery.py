"""What runs that have ended left behind on this host and in the ledger: answers, unanswered creates, intents."""

from __future__ import annotations

from sqlalchemy.exc import DataError, IntegrityError

from batcher.address import Server, intents_files, spill_files
from batcher.ledger.ledger import Ledger
from batcher.ledger.lifecycle.answers import doubt_unanswered, record_answer
from batcher.ledger.lifecycle.restored_rows import add_lost_intents
from batcher.ledger.storage import sharing
from batcher.ledger.storage.intents import IntentsFile
from batcher.ledger.storage.spill import Spill
from batcher.log import log


async def recover(ledger: Ledger, *, run_id: str, at: float, max_in_doubt: int) -> int:
    """Record the answers that such runs left in spill files, then put in doubt their creates without an answer, and
    those of this host that the ledger has lost. Returns the number of creates put in doubt.
    """
    if not ledger.is_shared:
        await _replay(ledger, ledger.spill, max_in_doubt)
    for writer, path in spill_files(ledger.address, ledger.ledger_id).items():
        if path != ledger.spill.path and await ledger.do(sharing.has_ended, writer):
            await _replay_left(ledger, Spill(path), max_in_doubt)
    doubts = await ledger.do(doubt_unanswered, at=at, run_id=run_id)
    return doubts + await _compare_intents(ledger, at)


async def _replay_left(ledger: Ledger, spill: Spill, max_in_doubt: int) -> None:
    """Record and remove what another run has left. Its process may outlive its session, and write for a while."""
    if not spill.is_left():
        return
    try:
        await _replay(ledger, spill, max_in_doubt)
        spill.remove()
    finally:
        spill.close()


async def _replay(ledger: Ledger, spill: Spill, max_in_doubt: int) -> None:
    rejected = False
    for record in spill.records():
        try:
            await ledger.do(record_answer, record, max_in_doubt=max_in_doubt)
        except (IntegrityError, DataError) as error:
            rejected = True
            log.error("an answer in the spill file does not fit the ledger", key=record.key, why=str(error.orig))
    if not rejected:
        spill.clear()


async def _compare_intents(ledger: Ledger, at: float) -> int:
    """Compare the intents files of such runs with the ledger, which may be an older state than theirs."""
    lost = 0
    if isinstance(ledger.address, Server) and ledger.intents is not None:
        for writer, path in intents_files(ledger.address, ledger.ledger_id).items():
            if path != ledger.intents.path and await ledger.do(sharing.has_ended, writer):
                left = IntentsFile(path)
                lost += await ledger.do(add_lost_intents, left.read(), at=at)
                left.remove()
    return lost
