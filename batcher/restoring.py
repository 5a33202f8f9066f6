"""A ledger that may not know all that was bought: noticed by the mark in the output folder, mended from results files.

A backup that is put to use again, an older state of the ledger, a new ledger beside old audio: each would buy again
what the folder shows to be bought.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio.to_thread

from batcher.clock import Clock, local
from batcher.delivery import Delivery
from batcher.errors import UsageError
from batcher.item import State
from batcher.ledger import reading, recalling
from batcher.ledger.ledger import Connection, Ledger, viewed
from batcher.ledger.records import FileRecord
from batcher.progress import Progress
from batcher.report import RESULTS, results_paths
from batcher.settings import Settings
from batcher.store import Owner, Store
from batcher.words import counted

_CHUNK = 200


def why_outdated(conn: Connection, store: Store) -> str | None:
    """Why the ledger may not know all that was bought; None when nothing says so."""
    who, owner = recalling.identity(conn), store.owner()
    if who.copied_at is not None:
        return f"the ledger is a copy, made at {local(who.copied_at)}: it does not know what was bought since"
    if owner is not None and owner.ledger_id != who.ledger_id:
        return f"another ledger has bought the audio in {store.folder}"
    if owner is not None and not recalling.knows_run(conn, owner.run_id):
        return f"the ledger is older than the audio in {store.folder}: it does not know the last run there"
    return None


def need_consent(settings: Settings, store: Store) -> bool:
    """Whether the ledger is to be restored first.

    Raises:
        UsageError: it is, and nobody has agreed to that.
    """
    with viewed(settings.ledger) as conn:
        why = why_outdated(conn, store)
    if why is not None and not settings.restored:
        raise UsageError(
            f"{why}; nothing was created",
            "--restored takes over what the results files there tell, and puts in doubt what else may have been "
            "bought; name all manifests of the ledger with it. Or choose another --ledger or --out-dir.",
        )
    return why is not None


async def recall(ledger: Ledger, settings: Settings, store: Store, progress: Progress, run_id: str, at: float) -> None:
    """Take in what the results files in the output folders tell, before any row is imported."""
    folders = {batch.out_dir for batch in await ledger.do(reading.current_batches)} | {store.out_dir}
    found = sorted(path for folder in folders for path in (settings.ledger.parent / folder).glob(f"*{RESULTS}.jsonl"))
    number = await ledger.do(recalling.recall, read_results(found, settings.ledger.parent), at=at)
    owner = store.owner()
    gap: recalling.Gap = "none" if owner is not None and _tells_all(owner, settings.out_dir) else "some"
    await ledger.do(recalling.begin, gap)
    who = await ledger.do(recalling.identity)
    batches = {} if owner is None else owner.batches
    store.sign(Owner(ledger_id=who.ledger_id, run_id=run_id, batches=batches))
    files, rows = counted(len(found), "results file"), counted(number, "row")
    progress.say(f"restoring: {files} tell of {rows} that may be bought")


def _tells_all(owner: Owner, out_dir: Path) -> bool:
    there = all(results_paths(out_dir, [batch])[0].is_file() for batch in owner.batches)
    return owner.original and there and all(owner.batches.values())


def read_results(paths: Sequence[Path], home: Path) -> Iterator[dict[str, Any]]:
    """The lines of results files (JSONL), each with the folder that its paths start from, relative to `home`.

    Raises:
        UsageError: one of them is not such a file.
    """
    for path in paths:
        out_dir = Store(home, path.absolute().parent).out_dir
        try:
            for text in path.read_text(encoding="utf-8").splitlines():
                line = json.loads(text)
                if not isinstance(line, dict) or not isinstance(line.get("id"), str) or "batch" not in line:
                    raise ValueError
                yield line | {"out_dir": out_dir}
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it does not hold lines of results"
            raise UsageError(f"{path}: {why}", "Give BATCH.results.jsonl as a run has written it.") from None


async def sign(ledger: Ledger, store: Store, run_id: str, batches: Sequence[str], *, whole: bool) -> None:
    """Leave word in the output folder that the run works there, and whether results files tell all of it by now.

    Raises:
        StorageError: the folder does not take it.
    """
    who, owner = await ledger.do(recalling.identity), store.owner()
    told = ({} if owner is None else owner.batches) | dict.fromkeys(batches, whole)
    store.sign(Owner(ledger_id=who.ledger_id, run_id=run_id, batches=told))


async def take_up(delivery: Delivery, progress: Progress, *, account_id: int, clock: Clock) -> None:
    """Give items the files, tasks and doubts that results files tell of, then settle what they do not tell."""
    ledger, store, run_id = delivery.ledger, delivery.store, delivery.run_id
    if not await ledger.do(recalling.due):
        return
    states: dict[str, int] = {}
    while cases := await ledger.do(recalling.told, _CHUNK):
        files = {case.item_key: await anyio.to_thread.run_sync(_file_of, store, case) for case in cases}
        found = await ledger.do(_take_up, cases, files, account_id, run_id, clock.now())
        for key, state in found.items():
            states[state] = states.get(state, 0) + 1
            if state is State.DONE:
                await delivery.link(await ledger.do(reading.outputs_of, key))
    doubts = await ledger.do(recalling.finish, account_id=account_id, run_id=run_id, at=clock.now())
    told = ", ".join(f"{number} {state}" for state, number in states.items()) or "nothing"
    progress.say(f"restored: results files tell of items now {told}; {doubts} more may have been bought (in doubt)")


def _take_up(
    conn: Connection,
    cases: Sequence[Any],
    files: dict[str, FileRecord | None],
    account_id: int,
    run_id: str,
    at: float,
) -> dict[str, State]:
    return {
        case.item_key: recalling.take_up(conn, case, files[case.item_key], account_id=account_id, run_id=run_id, at=at)
        for case in cases
    }


def _file_of(store: Store, case: Any) -> FileRecord | None:
    if not (case.sha256 and case.bytes and case.output):
        return None
    path = store.keep(case.out_dir, case.output, case.item_key, case.format, case.sha256)
    if path is None:
        return None
    return FileRecord(path=path, sha256=case.sha256, bytes=case.bytes, audio_seconds=case.audio_seconds)
