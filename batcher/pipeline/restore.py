"""Restores a ledger that may lack what was bought: detected by the mark in the output folder, from results files.

A restored backup, an older state of the ledger, or a new ledger beside old audio would buy again what the output folder
shows to be bought.
"""

from __future__ import annotations

import io
import json
import math
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio.to_thread

from batcher import files
from batcher.address import Address, Server, intents_files
from batcher.audio import folder_mark
from batcher.audio.content import TEMPORARY
from batcher.audio.folder_mark import Owner
from batcher.audio.store import Store
from batcher.audio.stores import Stores
from batcher.clock import Clock, local
from batcher.errors import UsageError
from batcher.formatting import counted
from batcher.item import State
from batcher.ledger.ledger import Connection, Ledger, open_locked, open_readonly
from batcher.ledger.lifecycle import restored_rows, runs
from batcher.ledger.queries import outputs
from batcher.ledger.queries.batches import current_batches
from batcher.ledger.queries.identity import Identity, has_run, identity, working_runs
from batcher.ledger.records import Batch, FileRecord
from batcher.ledger.storage.intents import IntentsFile
from batcher.ledger.storage.sharing import is_shared, take_turn
from batcher.manifest.storable import is_storable
from batcher.pipeline.context import RunContext
from batcher.pipeline.delivery import Delivery
from batcher.reports.observer import Observer
from batcher.reports.results import RESULTS, results_names
from batcher.settings import Settings

_CHUNK: Final = 200
"""Restored rows applied in one transaction."""
_WORDS: Final[dict[str, tuple[type, ...]]] = dict.fromkeys(("batch", "id", "state"), (str,)) | dict.fromkeys(
    ("key", "task_id", "output", "sha256"), (str, type(None))
)
_TYPES: Final[dict[str, tuple[type, ...]]] = (
    _WORDS | dict.fromkeys(("take", "bytes"), (int, type(None))) | {"audio_seconds": (int, float, type(None))}
)
"""Types of the fields that are read from a line of results."""
_KEY: Final = re.compile("[0-9a-f]{16,64}")
_MAX_LINE_CHARACTERS: Final = 1 << 25
"""Characters of a line of results: those of the longest line of a manifest, escaped."""
_MAX_INTEGER: Final = 2**62
"""Bounds the integers in a line of results: SQLite stores 64 bits."""


Owners = Sequence[tuple[Store, Owner | None]]
"""The run's own output folder, then the others of the ledger, each with the owner that its mark names."""


def read_owners(settings: Settings, batches: Sequence[Batch]) -> Owners:
    """Read the marks in the output folders of a run and of these batches.

    Raises:
        UsageError: an object store cannot be used.
        StorageError: an object store does not answer.
    """
    return [(store, folder_mark.owner(store)) for store in _stores(settings, batches)]


def why_outdated(conn: Connection, owners: Owners, ledger: Address) -> str | None:
    """Why the ledger may lack what was bought. None if nothing suggests it."""
    ours = identity(conn)
    if ours.copied_at is not None:
        return f"the ledger is a copy made at {local(ours.copied_at)}, without what was bought since"
    if ours.was_promoted:
        own = intents_files(ledger, ours.ledger_id) if isinstance(ledger, Server) else {}
        hosts = {host for run_id, host in working_runs(conn) if run_id not in own}
        if hosts or owners[0][1] is None:
            where = f" (by runs on {', '.join(sorted(hosts))})" if hosts else ""
            return f"the ledger is in another database than before, which may lack what was bought last{where}"
    for store, owner in owners:
        is_ours = owner is not None and owner.ledger_id == ours.ledger_id
        if owner is not None and is_ours and not has_run(conn, owner.run_id, ended=owner.ended):
            lacks = "the end of the last run there" if has_run(conn, owner.run_id) else "the last run there"
            return f"the ledger is older than the audio in {store.place}: it lacks {lacks}"
    store, owner = owners[0]
    if owner is not None and owner.ledger_id != ours.ledger_id:
        return f"another ledger bought the audio in {store.place}"
    return None


async def settle_own_runs(settings: Settings, progress: Observer, clock: Clock) -> None:
    """If the ledger is in another database than before, compare it with what this host's runs were about to create.

    What it lacks is put in doubt, and those runs no longer keep others from working.

    Raises:
        LockedError: another process works on the ledger.
    """
    ledger = settings.ledger
    if not isinstance(ledger, Server):
        return
    with open_readonly(ledger, settings.world) as conn:
        ours = identity(conn)
        noted = intents_files(ledger, ours.ledger_id) if ours.was_promoted else {}
    if not noted:
        return
    with open_locked(ledger, settings.world) as opened:
        lost = await opened.do(_settle, noted, clock.now() + await opened.ahead_seconds())
    if lost:
        progress.warn(
            f"the ledger is in another database than before, which lacks {counted(lost, 'create request')} (may have "
            "been bought); see `batcher resolve`"
        )


def _settle(conn: Connection, noted: Mapping[str, Path], at: float) -> int:
    lost = 0
    for path in noted.values():
        lost += restored_rows.add_lost_intents(conn, IntentsFile(path).read(), at=at)
    runs.record_vanished(conn, list(noted), at=at)
    return lost


def need_consent(settings: Settings) -> tuple[bool, bool]:
    """Whether the ledger is to be restored first; and whether the run must work alone, since it restores the ledger or
    is the first in another database.

    Raises:
        UsageError: it is, without `--restored`; or the output folder belongs to the other world, sandbox or real.
        StorageError: the object store does not answer.
    """
    with open_readonly(settings.ledger) as conn:
        batches = current_batches(conn)
    owners = read_owners(settings, batches)
    owner = owners[0][1]
    if owner is not None and owner.world != settings.world:
        origin = "sandbox" if owner.world == "sandbox" else "real API"
        raise UsageError(
            f"the audio in {settings.out_dir} is from the {origin}. Nothing was created.",
            "Choose another --out-dir.",
        )
    with open_readonly(settings.ledger) as conn:
        why, due = why_outdated(conn, owners, settings.ledger), restored_rows.due(conn)
        was_promoted = identity(conn).was_promoted
    if why is not None and not settings.restored:
        raise UsageError(
            f"{why}. Nothing was created.",
            "Pass --restored and all manifests of the ledger: the results files there are imported, and other items "
            "that may have been bought are put in doubt. Or choose another --ledger or --out-dir. "
            "See `batcher help files`.",
        )
    return why is not None, due or was_promoted or settings.restored


def _stores(settings: Settings, batches: Sequence[Batch]) -> list[Store]:
    """The run's own output folder, then the other output folders of the ledger's batches."""
    stores = Stores(settings.home)
    own = stores.of(settings.out_dir)
    others = {batch.out_dir for batch in batches} - {own.out_dir}
    return [own, *map(stores.at, sorted(others))]


async def import_rows(ctx: RunContext, *, outdated: bool) -> None:
    """Store what the results files in the output folders report, before any manifest is imported.

    Of a ledger that is not `outdated`, only batches that it lacks are restored.
    """
    ledger, settings = ctx.ledger, ctx.settings
    batches = await ledger.do(current_batches)
    stores = _stores(settings, batches)
    known = frozenset() if outdated else frozenset(batch.name for batch in batches)
    with tempfile.TemporaryDirectory(prefix=TEMPORARY) as folder:
        found = await anyio.to_thread.run_sync(_results_files, stores, Path(folder))
        lines = (line for line in read_results(found) if line["batch"] not in known)
        number = await ledger.do_once(restored_rows.add, lines, at=ctx.clock.now())
    if outdated:
        await _begin(ledger, stores, ctx.run_id, batches)
    rows, files = counted(number, "row"), counted(len(found), "results file")
    ctx.progress.say(f"restoring: {rows} that may have been bought in {files}")


class ResultsFile(NamedTuple):
    """A results file (JSONL) on disk, perhaps a copy: its path, its name for people, and the output folder that its
    paths are relative to, as the ledger has it."""

    path: Path
    shown: str
    out_dir: str


def results_file(store: Store, name: str, folder: Path) -> ResultsFile:
    """A results file of an output folder; a copy of one in an object store goes into `folder`.

    Raises:
        OSError: the store does not have it, or does not answer.
    """
    return ResultsFile(store.on_disk(name, folder), store.shown(name), store.out_dir)


def _results_files(stores: Sequence[Store], folder: Path) -> list[ResultsFile]:
    """The results files in these output folders."""
    return [results_file(store, name, folder) for store in stores for name in store.ending_with(f"{RESULTS}.jsonl")]


async def _begin(ledger: Ledger, stores: Sequence[Store], run_id: str, batches: Sequence[Batch]) -> None:
    """Record whether the results files are complete, then mark the folders as this ledger's."""
    owners = [(store, await anyio.to_thread.run_sync(folder_mark.owner, store)) for store in stores]
    needed = {batch.out_dir for batch in batches} or {stores[0].out_dir}
    relevant = [(store, owner) for store, owner in owners if owner is not None or store.out_dir in needed]
    complete = await anyio.to_thread.run_sync(lambda: all(_is_complete(*one) for one in relevant))
    await ledger.do(restored_rows.begin, "none" if complete else "some")
    ours = await ledger.do(identity)
    for store, owner in owners:
        if store is stores[0] or (owner is not None and owner.ledger_id == ours.ledger_id):
            await _mark(store, ours, run_id, {} if owner is None else owner.batches)


def _is_complete(store: Store, owner: Owner | None) -> bool:
    """Whether the results files in the folder report all that was bought there, and are unchanged."""
    if owner is None or not owner.original or not owner.batches:
        return False
    return all(sha256 is not None and sha256 == _results_digest(store, name) for name, sha256 in owner.batches.items())


def _results_digest(store: Store, batch: str) -> str | None:
    return store.digest_at(results_names(batch)[0])


async def _mark(store: Store, ours: Identity, run_id: str, batches: dict[str, str | None]) -> None:
    owner = Owner(ledger_id=ours.ledger_id, run_id=run_id, batches=batches, world=ours.world)
    await anyio.to_thread.run_sync(folder_mark.sign, store, owner)


def read_results(found: Sequence[ResultsFile]) -> Iterator[dict[str, Any]]:
    """The lines of results files, each with the `out_dir` of its paths.

    Raises:
        UsageError: a file cannot be read, or is not a results file.
    """
    for path, shown, out_dir in found:
        try:
            # Only "\n" ends a line: texts may contain other characters at which str.splitlines would split.
            with io.TextIOWrapper(files.reading(path), encoding="utf-8", newline="\n") as file:
                for text in iter(partial(file.readline, _MAX_LINE_CHARACTERS), ""):
                    yield _parse_line(text) | {"out_dir": out_dir}
        except OSError as error:
            raise UsageError(f"cannot read {shown}: {error.strerror}", "Check the file and its permissions.") from None
        except (ValueError, RecursionError):
            raise UsageError(f"{shown} is not a results file", "Use BATCH.results.jsonl as written by a run.") from None


def _parse_line(text: str) -> dict[str, Any]:
    """One line of results.

    Raises:
        ValueError: it is not one.
    """
    line = json.loads(text)
    if not isinstance(line, dict) or any(type(line.get(name)) not in types for name, types in _TYPES.items()):
        raise ValueError
    numbers = [line[name] for name in ("take", "bytes") if line.get(name) is not None]
    if any(not 0 < number < _MAX_INTEGER for number in numbers) or not math.isfinite(line.get("audio_seconds") or 0):
        raise ValueError
    if not all(is_storable(line[name] or "") for name in _WORDS if name in line):
        raise ValueError
    if not _KEY.fullmatch(line.get("key") or "0" * 64) or _leads_out(line.get("output") or ""):
        raise ValueError
    return line


def _leads_out(output: str) -> bool:
    return output.startswith("/") or ".." in output.split("/")


def sign(conn: Connection, ctx: RunContext, batches: Sequence[str], *, ended: bool) -> None:
    """Mark the output folder as this run's, and the results files of these batches as incomplete.

    `ended`: the run has recorded its end, after it wrote these files. They are complete unless another run works on
    the ledger, which then signs at its own end.

    Raises:
        StorageError: the folder cannot be written.
    """
    take_turn(conn, "mark")
    ours, store = identity(conn), ctx.store
    owner = folder_mark.owner(store)
    if ended and (owner is None or not _may_end(conn, owner, ours, ctx.run_id)):
        return
    digests = {batch: _results_digest(store, batch) if ended else None for batch in batches}
    found = {} if owner is None else owner.batches
    mark = Owner(ledger_id=ours.ledger_id, run_id=ctx.run_id, batches=found | digests, world=ours.world, ended=ended)
    folder_mark.sign(store, mark)


def _may_end(conn: Connection, owner: Owner, ours: Identity, run_id: str) -> bool:
    """Whether nobody buys into the folder any more: this run signed last, or other runs did that have ended."""
    if runs.others_work(conn, run_id):
        return False
    return owner.run_id == run_id or (is_shared(conn) and owner.ledger_id == ours.ledger_id)


async def apply_rows(delivery: Delivery, *, account_id: int, imported: bool) -> None:
    """Assign items the files, tasks and doubts that results files report, then put other possible purchases in doubt.

    The latter only once the manifests are `imported`: before that, the ledger lacks the items to put in doubt.
    """
    ctx, ledger = delivery.ctx, delivery.ctx.ledger
    if not await ledger.do(restored_rows.due):
        return
    states: Counter[State] = Counter()
    while rows := await ledger.do(restored_rows.next_rows, _CHUNK):
        files = await _restore_files(ctx.stores, rows)
        applied = await ledger.do(_apply, rows, files, account_id, ctx.run_id, ctx.clock.now())
        states.update(applied.values())
        for key, state in applied.items():
            if state is State.DONE:
                await delivery.link(await ledger.do(outputs.outputs_of, key))
    if not imported:
        ctx.progress.say(
            "restoring continues in the next run that imports the manifests; nothing is created until then"
        )
        return
    await anyio.to_thread.run_sync(ctx.store.expect, None)
    has_item, at = partial(_has_item, ctx.store), ctx.clock.now()
    doubts = await ledger.do(restored_rows.finish, has_item, account_id=account_id, run_id=ctx.run_id, at=at)
    reported = ", ".join(f"{number:,} {state.replace('_', ' ')}" for state, number in states.items()) or "no items"
    ctx.progress.say(
        f"restored from results files: {reported}; {counted(doubts, 'other item')} in doubt (may have been bought)"
    )


def _has_item(store: Store, key: str, audio_format: str) -> bool:
    return store.is_there(store.item_path(key, audio_format))


async def _restore_files(stores: Stores, rows: Sequence[Any]) -> dict[str, FileRecord | None]:
    """By item, the file that its rows report, after making sure that it is at the item's path. None if it is lost."""
    files: dict[str, FileRecord | None] = {}
    for row in rows:
        if files.get(row.item_key) is None:
            files[row.item_key] = await anyio.to_thread.run_sync(_restore_file, stores, row)
    return files


def _restore_file(stores: Stores, row: Any) -> FileRecord | None:
    if not (row.sha256 and row.bytes and row.output):
        return None
    path = stores.at(row.out_dir).keep(row.output, row.item_key, row.format, row.sha256)
    if path is None:
        return None
    return FileRecord(path=path, sha256=row.sha256, bytes=row.bytes, audio_seconds=row.audio_seconds)


def _apply(
    conn: Connection,
    rows: Sequence[Any],
    files: dict[str, FileRecord | None],
    account_id: int,
    run_id: str,
    at: float,
) -> dict[str, State]:
    """Returns the state of each item afterwards."""
    return {
        row.item_key: restored_rows.apply(conn, row, files[row.item_key], account_id=account_id, run_id=run_id, at=at)
        for row in rows
    }
