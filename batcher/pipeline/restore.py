"""A ledger that may not know all that was bought: noticed by the mark in the output folder, mended from results files.

A backup that is put to use again, an older state of the ledger, a new ledger beside old audio: each would buy again
what the folder shows to be bought.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import anyio.to_thread

from batcher.audio import folder_mark
from batcher.audio.folder_mark import Owner
from batcher.audio.store import Store, digest
from batcher.clock import Clock, local
from batcher.errors import UsageError
from batcher.formatting import counted
from batcher.item import State
from batcher.ledger.ledger import Connection, Ledger, open_readonly
from batcher.ledger.lifecycle import restored_rows
from batcher.ledger.queries import outputs
from batcher.ledger.queries.batches import current_batches
from batcher.ledger.queries.identity import has_run, identity
from batcher.ledger.records import Batch, FileRecord
from batcher.pipeline.delivery import Delivery
from batcher.reports.progress import Progress
from batcher.reports.results import RESULTS, results_paths
from batcher.settings import Settings

_CHUNK = 200
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    **dict.fromkeys(("batch", "id", "state"), (str,)),
    **dict.fromkeys(("key", "task_id", "output", "sha256"), (str, type(None))),
    **dict.fromkeys(("take", "bytes"), (int, type(None))),
    "audio_seconds": (int, float, type(None)),
}
"""What the values are in a line of results, as far as they are read."""
_LARGEST: Final = 2**62


def why_outdated(conn: Connection, settings: Settings) -> str | None:
    """Why the ledger may not know all that was bought; None when nothing says so."""
    who, stores = identity(conn), _stores(settings, current_batches(conn))
    if who.copied_at is not None:
        return f"the ledger is a copy, made at {local(who.copied_at)}: it does not know what was bought since"
    for store in stores:
        owner = folder_mark.owner(store.folder)
        if owner is not None and owner.ledger_id == who.ledger_id and not has_run(conn, owner.run_id):
            return f"the ledger is older than the audio in {store.folder}: it does not know the last run there"
    owner = folder_mark.owner(stores[0].folder)
    if owner is not None and owner.ledger_id != who.ledger_id:
        return f"another ledger has bought the audio in {stores[0].folder}"
    return None


def need_consent(settings: Settings) -> bool:
    """Whether the ledger is to be restored first.

    Raises:
        UsageError: it is, and nobody has agreed to that; or the output folder is the sandbox's, or not the sandbox's.
    """
    owner = folder_mark.owner(settings.out_dir)
    if owner is not None and owner.world != settings.world:
        raise UsageError(
            f"the audio in {settings.out_dir} belongs to the {owner.world} world; nothing was created",
            "Choose another --out-dir.",
        )
    with open_readonly(settings.ledger) as conn:
        why = why_outdated(conn, settings)
    if why is not None and not settings.restored:
        raise UsageError(
            f"{why}; nothing was created",
            "--restored takes over what the results files there tell, and puts in doubt what else may have been "
            "bought; name all manifests of the ledger with it. Or choose another --ledger or --out-dir.",
        )
    return why is not None


def _stores(settings: Settings, batches: Sequence[Batch]) -> list[Store]:
    """The run's own output folder, then those of the ledger's batches."""
    home = settings.ledger.parent
    own = Store(home, settings.out_dir)
    others = {batch.out_dir for batch in batches} - {own.out_dir}
    return [own, *(Store(home, Path(os.path.normpath(home / out_dir))) for out_dir in sorted(others))]


async def recall(
    ledger: Ledger, settings: Settings, progress: Progress, *, run_id: str, at: float, outdated: bool
) -> None:
    """Take in what the results files in the output folders tell, before any row is imported.

    A ledger that is not `outdated` only listens to what they tell of batches that it does not know.
    """
    batches = await ledger.do(current_batches)
    stores = _stores(settings, batches)
    found = [path for store in stores for path in sorted(store.folder.glob(f"*{RESULTS}.jsonl"))]
    known = frozenset() if outdated else frozenset(batch.name for batch in batches)
    lines = (line for line in read_results(found, settings.ledger.parent) if line["batch"] not in known)
    number = await ledger.do(restored_rows.add, lines, at=at)
    if outdated:
        await _begin(ledger, stores, run_id, batches)
    files, rows = counted(len(found), "results file"), counted(number, "row")
    progress.say(f"restoring: {files} tell of {rows} that may be bought")


async def _begin(ledger: Ledger, stores: Sequence[Store], run_id: str, batches: Sequence[Batch]) -> None:
    """Note whether the results files tell all, then leave word that this ledger is at work in the folders."""
    owners = [(store, folder_mark.owner(store.folder)) for store in stores]
    needed = {batch.out_dir for batch in batches} or {stores[0].out_dir}
    telling = [_tells_all(store, owner) for store, owner in owners if owner is not None or store.out_dir in needed]
    await ledger.do(restored_rows.begin, "none" if all(telling) else "some")
    who = await ledger.do(identity)
    for store, owner in owners:
        if store is stores[0] or (owner is not None and owner.ledger_id == who.ledger_id):
            told = {} if owner is None else owner.batches
            folder_mark.sign(store.folder, Owner(ledger_id=who.ledger_id, run_id=run_id, batches=told, world=who.world))


def _tells_all(store: Store, owner: Owner | None) -> bool:
    """Whether the results files in the folder are, unchanged, those that told all."""
    if owner is None or not owner.original or not owner.batches:
        return False
    return all(told is not None and told == _results_digest(store, batch) for batch, told in owner.batches.items())


def _results_digest(store: Store, batch: str) -> str | None:
    path = results_paths(store.folder, [batch])[0]
    return digest(path) if path.is_file() else None


def read_results(paths: Sequence[Path], home: Path) -> Iterator[dict[str, Any]]:
    """The lines of results files (JSONL), each with the folder that its paths start from, relative to `home`.

    Raises:
        UsageError: one of them is not such a file.
    """
    for path in paths:
        out_dir = Store(home, path.absolute().parent).out_dir
        try:
            # No other character ends a line: texts hold what str.splitlines takes for an end.
            with path.open(encoding="utf-8", newline="\n") as file:
                for text in file:
                    yield _line(text) | {"out_dir": out_dir}
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it does not hold lines of results"
            raise UsageError(f"{path}: {why}", "Give BATCH.results.jsonl as a run has written it.") from None


def _line(text: str) -> dict[str, Any]:
    """One line of results.

    Raises:
        ValueError: it is no such line.
    """
    line = json.loads(text)
    if not isinstance(line, dict) or any(type(line.get(name)) not in types for name, types in _TYPES.items()):
        raise ValueError
    sizes = [line[name] for name in ("take", "bytes") if line.get(name) is not None]
    if any(not 0 < size < _LARGEST for size in sizes):
        raise ValueError
    return line


async def sign(ledger: Ledger, store: Store, run_id: str, batches: Sequence[str], *, whole: bool) -> None:
    """Leave word in the output folder that the run works there, and whether results files tell all of it by now.

    Raises:
        StorageError: the folder does not take it.
    """
    who, owner = await ledger.do(identity), folder_mark.owner(store.folder)
    new = {batch: _results_digest(store, batch) if whole else None for batch in batches}
    told = ({} if owner is None else owner.batches) | new
    folder_mark.sign(store.folder, Owner(ledger_id=who.ledger_id, run_id=run_id, batches=told, world=who.world))


async def take_up(delivery: Delivery, progress: Progress, *, account_id: int, clock: Clock, imported: bool) -> None:
    """Give items the files, tasks and doubts that results files tell of, then settle what they do not tell.

    The latter only once the manifests are `imported`: before that, the ledger has no item that could be in doubt.
    """
    ledger, store, run_id = delivery.ledger, delivery.store, delivery.run_id
    if not await ledger.do(restored_rows.due):
        return
    states: dict[str, int] = {}
    while cases := await ledger.do(restored_rows.next_rows, _CHUNK):
        files: dict[str, FileRecord | None] = {}
        for case in cases:
            if files.get(case.item_key) is None:  # of rows that share an item, one with its file is enough
                files[case.item_key] = await anyio.to_thread.run_sync(_file_of, store, case)
        found = await ledger.do(_take_up, cases, files, account_id, run_id, clock.now())
        for key, state in found.items():
            states[state] = states.get(state, 0) + 1
            if state is State.DONE:
                await delivery.link(await ledger.do(outputs.outputs_of, key))
    if not imported:
        progress.say("restoring goes on with the next run that takes the manifests in; until then nothing is created")
        return
    doubts = await ledger.do(restored_rows.finish, store.has_item, account_id=account_id, run_id=run_id, at=clock.now())
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
        case.item_key: restored_rows.apply(
            conn, case, files[case.item_key], account_id=account_id, run_id=run_id, at=at
        )
        for case in cases
    }


def _file_of(store: Store, case: Any) -> FileRecord | None:
    if not (case.sha256 and case.bytes and case.output):
        return None
    path = store.keep(case.out_dir, case.output, case.item_key, case.format, case.sha256)
    if path is None:
        return None
    return FileRecord(path=path, sha256=case.sha256, bytes=case.bytes, audio_seconds=case.audio_seconds)
