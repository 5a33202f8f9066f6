"""Compares the stored audio with the ledger: the audio of every done item, and the output of every row."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, TypeVar

from batcher.audio.store import Difference, Kind
from batcher.audio.stores import Stores
from batcher.errors import StorageError
from batcher.ledger.ledger import Connection
from batcher.ledger.lifecycle import repairs
from batcher.ledger.lifecycle.repairs import SavedFile
from batcher.ledger.queries import outputs
from batcher.ledger.records import Output

T = TypeVar("T")
_READERS: Final = 8
"""Files read at once."""
_CHUNK: Final = 1000
"""Files that are given to the readers together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A file that differs from the ledger: a row's `output`, or the item's own file if that is None.

    `path` is absolute, or a URL. `ours`: what is there now was written by this ledger, and may be set aside.
    """

    kind: Kind
    path: str
    saved: SavedFile
    output: Output | None = None
    ours: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The result of a comparison: how many items and outputs were checked, and the faults, of items before rows."""

    items: int = 0
    outputs: int = 0
    faults: list[Fault] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedFiles:
    """The files that the ledger expects on disk: those of done items, by key, and the outputs of their rows."""

    items: dict[str, SavedFile]
    outputs: list[Output]


def expected_files(conn: Connection) -> ExpectedFiles:
    """Read the expected files. They are compared afterwards, so that no run has to wait for the disk."""
    items = {saved.key: saved for saved in repairs.saved(conn)}
    return ExpectedFiles(items=items, outputs=[output for output in outputs.outputs(conn) if output.key in items])


def compare(expected: ExpectedFiles, stores: Stores) -> Findings:
    """Compare the stored files with those expected by the ledger. Changes nothing.

    Raises:
        StorageError: a file exists and cannot be read.
    """
    known = {saved.sha256 for saved in expected.items.values()}
    try:
        of_items = _each(lambda saved: _check_item(saved, stores), list(expected.items.values()))
        faulty = {fault.saved.key: fault for fault in of_items}
        of_outputs = _each(
            lambda output: _check_output(expected.items[output.key], output, stores, faulty.get(output.key), known),
            expected.outputs,
        )
        faults = [*faulty.values(), *of_outputs]
    except OSError as error:
        hint = "Fix the disk or the file's permissions; an object store may only be out of reach for now."
        raise StorageError(f"cannot read {error.filename}: {error.strerror}", hint) from error
    return Findings(items=len(expected.items), outputs=len(expected.outputs), faults=faults)


def _each(check: Callable[[T], Fault | None], files: Sequence[T]) -> list[Fault]:
    """The faults of these files, in their order."""
    found: list[Fault] = []
    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(files), _CHUNK):
            found += filter(None, readers.map(check, files[start : start + _CHUNK]))
    return found


def _check_item(saved: SavedFile, stores: Stores) -> Fault | None:
    store = stores.at(saved.out_dir)
    found = store.item_fault(saved)
    if found is None:
        return None
    return Fault(kind=found.kind, path=store.shown(saved.path), saved=saved, ours=found.ours)


def _check_output(
    saved: SavedFile, output: Output, stores: Stores, of_item: Fault | None, known: Set[str]
) -> Fault | None:
    """`of_item` is the fault of the item's own file; `known` are the digests of all saved audio."""
    store = stores.at(output.out_dir)
    item_fault = None if of_item is None else Difference(of_item.kind, of_item.ours)
    found = store.output_fault(output, saved, item_fault, known)
    if found is None:
        return None
    return Fault(kind=found.kind, path=store.shown(output.output), saved=saved, output=output, ours=found.ours)
