"""Is the audio on disk what the ledger remembers? Looks at every done item's file and at every row's output."""

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

    MISSING = "missing"  # nothing is there
    TRUNCATED = "truncated"  # only the beginning of the audio is there
    CHANGED = "changed"  # the file is the one that was made, with other content
    REPLACED = "replaced"  # something else lies there


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A file that is not what the ledger remembers: a row's `output`, or the item's own file when that is None.

    `ours`: what lies there is known to have been made by the ledger, so that it may be set aside.
    """

    kind: Kind
    path: Path
    saved: SavedFile
    output: Output | None = None
    ours: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a look at the disk came to; faults of items stand before those of rows."""

    items: int = 0
    outputs: int = 0
    faults: list[Fault] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedFiles:
    """What the ledger remembers of the disk: done items by their keys, and the rows' outputs of their audio."""

    items: dict[str, SavedFile]
    outputs: list[Output]


def expected_files(conn: Connection) -> ExpectedFiles:
    """What should lie on disk; quickly read, so that no run waits while the disk is looked at."""
    every = {one.key: one for one in repairs.saved(conn)}
    found = outputs.outputs(conn)
    return ExpectedFiles(items=every, outputs=[one for one in found if one.key in every])


def compare(memory: ExpectedFiles, home: Path) -> Findings:
    """Compare the disk with what the ledger whose folder is `home` remembers. Changes nothing.

    Raises:
        StorageError: a file is there and cannot be read.
    """
    known = {one.sha256 for one in memory.items.values()}
    try:
        bad = {key: fault for key, one in memory.items.items() if (fault := _judge_item(one, home)) is not None}
        judged = (
            _judge_output(memory.items[output.key], output, home, bad.get(output.key), known)
            for output in memory.outputs
        )
        faults = [*bad.values(), *(fault for fault in judged if fault is not None)]
    except OSError as error:
        raise StorageError(f"{error.filename}: {error.strerror}", "Mend the disk or the file's permissions.") from error
    return Findings(items=len(memory.items), outputs=len(memory.outputs), faults=faults)


def item_path(saved: SavedFile, home: Path) -> Path:
    """Where the item's own file belongs."""
    return home / saved.out_dir / saved.path


def output_path(output: Output, home: Path) -> Path:
    """Where the row's output belongs."""
    return home / output.out_dir / output.output


def _judge_item(saved: SavedFile, home: Path) -> Fault | None:
    path = item_path(saved, home)
    if not path.exists() and not path.is_symlink():
        return Fault(kind=Kind.MISSING, path=path, saved=saved)
    if not path.is_file():
        return Fault(kind=Kind.REPLACED, path=path, saved=saved, ours=False)
    size = path.stat().st_size
    if size == saved.bytes and digest(path) == saved.sha256:
        return None
    return Fault(kind=Kind.TRUNCATED if size < saved.bytes else Kind.CHANGED, path=path, saved=saved)


def _judge_output(saved: SavedFile, output: Output, home: Path, item: Fault | None, known: Set[str]) -> Fault | None:
    path, source = output_path(output, home), item_path(saved, home)
    if not path.exists() and not path.is_symlink():
        return Fault(kind=Kind.MISSING, path=path, saved=saved, output=output)
    if not path.is_file():
        return Fault(kind=Kind.REPLACED, path=path, saved=saved, output=output, ours=False)
    if source.is_file() and path.samefile(source):
        return None if item is None else Fault(kind=item.kind, path=path, saved=saved, output=output)
    found = digest(path)
    if found == saved.sha256:
        return None
    if any(path.samefile(one) for one in source.parent.glob(f"{saved.key}.*")):  # healing was cut short here
        return Fault(kind=Kind.CHANGED, path=path, saved=saved, output=output)
    if item is None and _begins(source, path):
        return Fault(kind=Kind.TRUNCATED, path=path, saved=saved, output=output)
    return Fault(kind=Kind.REPLACED, path=path, saved=saved, output=output, ours=found in known)


def _begins(whole: Path, part: Path) -> bool:
    """Whether `whole` begins with all that is in `part`, and goes on."""
    size = part.stat().st_size
    if size >= whole.stat().st_size:
        return False
    with whole.open("rb") as one, part.open("rb") as other:
        while chunk := other.read(1 << 20):
            if one.read(len(chunk)) != chunk:
                return False
    return True
