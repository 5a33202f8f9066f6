"""Is the audio on disk what the ledger remembers? Looks at every done item's file and at every row's output."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from batcher.ledger import auditing, reading
from batcher.ledger.auditing import Saved
from batcher.ledger.ledger import Connection
from batcher.ledger.reading import Output
from batcher.store import digest


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
    saved: Saved
    output: Output | None = None
    ours: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a look at the disk came to; faults of items stand before those of rows."""

    items: int = 0
    outputs: int = 0
    faults: list[Fault] = field(default_factory=list)


def verify(conn: Connection, home: Path) -> Findings:
    """Compare the disk with the ledger whose folder is `home`. Reads every file of it once, and changes nothing.

    Raises:
        OSError: a file is there and cannot be read.
    """
    every = {one.key: one for one in auditing.saved(conn)}
    faults, bad, number = [], {}, 0
    for one in every.values():
        if (fault := _judge_item(one, home)) is not None:
            faults.append(fault)
            bad[one.key] = fault
    for output in reading.outputs(conn, reading.current_batches(conn)):
        if output.saved and output.key in every:
            number += 1
            if (fault := _judge_output(conn, every[output.key], output, home, bad.get(output.key))) is not None:
                faults.append(fault)
    return Findings(items=len(every), outputs=number, faults=faults)


def item_path(saved: Saved, home: Path) -> Path:
    """Where the item's own file belongs."""
    return home / saved.out_dir / saved.path


def output_path(output: Output, home: Path) -> Path:
    """Where the row's output belongs."""
    return home / output.out_dir / output.output


def _judge_item(saved: Saved, home: Path) -> Fault | None:
    path = item_path(saved, home)
    if not path.exists() and not path.is_symlink():
        return Fault(kind=Kind.MISSING, path=path, saved=saved)
    if not path.is_file():
        return Fault(kind=Kind.REPLACED, path=path, saved=saved, ours=False)
    size = path.stat().st_size
    if size == saved.bytes and digest(path) == saved.sha256:
        return None
    return Fault(kind=Kind.TRUNCATED if size < saved.bytes else Kind.CHANGED, path=path, saved=saved)


def _judge_output(conn: Connection, saved: Saved, output: Output, home: Path, item: Fault | None) -> Fault | None:
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
    if item is None and _begins(source, path):
        return Fault(kind=Kind.TRUNCATED, path=path, saved=saved, output=output)
    ours = reading.is_known_audio(conn, found)
    return Fault(kind=Kind.REPLACED, path=path, saved=saved, output=output, ours=ours)


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
