"""Compares the audio on disk with the ledger: the file of every done item, and the output of every row."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from batcher.audio.store import digest
from batcher.errors import StorageError
from batcher.ledger.ledger import Connection
from batcher.ledger.lifecycle import repairs
from batcher.ledger.lifecycle.repairs import SavedFile
from batcher.ledger.queries import outputs
from batcher.ledger.records import Output


class Kind(StrEnum):
    """What is wrong with a file."""

    MISSING = "missing"
    TRUNCATED = "truncated"  # only the beginning of the audio is there
    CHANGED = "changed"  # our file, with other content
    REPLACED = "replaced"  # another file, or not a file


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A file that differs from the ledger: a row's `output`, or the item's own file if that is None.

    `ours`: what is there now was written by this ledger, and may be set aside.
    """

    kind: Kind
    path: Path
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


def compare(expected: ExpectedFiles, home: Path) -> Findings:
    """Compare the files on disk with those expected by the ledger in the folder `home`. Changes nothing.

    Raises:
        StorageError: a file exists and cannot be read.
    """
    known = {saved.sha256 for saved in expected.items.values()}
    try:
        faulty = {key: fault for key, saved in expected.items.items() if (fault := _check_item(saved, home))}
        of_outputs = (
            _check_output(expected.items[output.key], output, home, faulty.get(output.key), known)
            for output in expected.outputs
        )
        faults = [*faulty.values(), *(fault for fault in of_outputs if fault is not None)]
    except OSError as error:
        hint = "Fix the disk or the file's permissions."
        raise StorageError(f"cannot read {error.filename}: {error.strerror}", hint) from error
    return Findings(items=len(expected.items), outputs=len(expected.outputs), faults=faults)


def item_path(saved: SavedFile, home: Path) -> Path:
    """The path of the item's own file."""
    return home / saved.out_dir / saved.path


def output_path(output: Output, home: Path) -> Path:
    """The path of the row's output."""
    return home / output.out_dir / output.output


def _check_item(saved: SavedFile, home: Path) -> Fault | None:
    path = item_path(saved, home)
    if not path.exists() and not path.is_symlink():
        return Fault(kind=Kind.MISSING, path=path, saved=saved)
    if not path.is_file():
        return Fault(kind=Kind.REPLACED, path=path, saved=saved, ours=False)
    size = path.stat().st_size
    if size == saved.bytes and digest(path) == saved.sha256:
        return None
    return Fault(kind=Kind.TRUNCATED if size < saved.bytes else Kind.CHANGED, path=path, saved=saved)


def _check_output(saved: SavedFile, output: Output, home: Path, of_item: Fault | None, known: Set[str]) -> Fault | None:
    """`of_item` is the fault of the item's own file; `known` are the digests of all saved audio."""
    path, source = output_path(output, home), item_path(saved, home)
    if not path.exists() and not path.is_symlink():
        return Fault(kind=Kind.MISSING, path=path, saved=saved, output=output)
    if not path.is_file():
        return Fault(kind=Kind.REPLACED, path=path, saved=saved, output=output, ours=False)
    if source.is_file() and path.samefile(source):
        return None if of_item is None else Fault(kind=of_item.kind, path=path, saved=saved, output=output)
    sha256 = digest(path)
    if sha256 == saved.sha256:
        return None
    if _is_set_aside(path, source, saved.key):
        return Fault(kind=Kind.CHANGED, path=path, saved=saved, output=output)
    if of_item is None and _is_beginning(path, source):
        return Fault(kind=Kind.TRUNCATED, path=path, saved=saved, output=output)
    return Fault(kind=Kind.REPLACED, path=path, saved=saved, output=output, ours=sha256 in known)


def _is_set_aside(path: Path, source: Path, key: str) -> bool:
    """Whether the output still links to an item file that an interrupted repair set aside."""
    return any(path.samefile(aside) for aside in source.parent.glob(f"{key}.*"))


def _is_beginning(part: Path, whole: Path) -> bool:
    """Whether the content of `part` is a proper beginning of `whole`."""
    if part.stat().st_size >= whole.stat().st_size:
        return False
    with whole.open("rb") as complete, part.open("rb") as file:
        while chunk := file.read(1 << 20):
            if complete.read(len(chunk)) != chunk:
                return False
    return True
