"""Audio on disk: one file per item under `OUT/.items/`, and a hard link to it for each row.

A file appears at its path whole or not at all: it is written under a dot-name in the same folder, made durable, then
renamed. What is there already and is not ours is never replaced.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from batcher.errors import StorageError, UsageError
from batcher.ledger.records import Output

ITEMS: Final = ".items"
_BAD: Final = ".bad"
_NO_LINKS: Final = (errno.EPERM, errno.ENOSYS, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The ledger and the run that were last at work in an output folder.

    `batches` are those that have results there: the digest of the file that tells all that the last run of each did,
    None while there is no such file. `original`: the folder is the one that was signed, and not a copy of it.
    """

    ledger_id: str
    run_id: str
    batches: dict[str, str | None]
    world: str = "real"
    original: bool = True


class Store:
    """The audio of one ledger whose file lies in `home`; new items go below `out_dir`."""

    def __init__(self, home: Path, out_dir: Path) -> None:
        self._home = home
        self._mark = out_dir / ITEMS / ".ledger.json"
        self._free_folder: str | None = None
        self.folder = out_dir
        self.out_dir = os.path.relpath(out_dir, home)
        """The output folder as the ledger keeps it: relative, so that both can move together."""

    def item_path(self, key: str, audio_format: str) -> str:
        """Where an item's audio goes, relative to the output folder."""
        return f"{ITEMS}/{key[:2]}/{key}.{audio_format}"

    def part(self, path: str) -> Path:
        """Where the audio for the item path `path` is written until it is whole; its folder exists afterwards."""
        final = self.folder / path
        final.parent.mkdir(parents=True, exist_ok=True)
        return final.with_name(f".{final.name}.part")

    def keep_bad(self, path: str) -> Path:
        """Keep the part that is no audio for the item, to be looked at: the last one, until good audio comes.

        Returns where it is.
        """
        return self.part(path).replace(self._bad(path))

    def bad(self, key: str = "*") -> Iterator[Path]:
        """What was kept of this item, or of all, because it was no audio for it."""
        return (self.folder / ITEMS).glob(f"{key[:2] if key != '*' else key}/{key}{_BAD}")

    def _bad(self, path: str) -> Path:
        return (self.folder / path).with_suffix(_BAD)

    def publish(self, path: str) -> Path | None:
        """Rename the durable part to its final path and make that durable too.

        Another file there is set aside. Returns its new path, None if there was none.
        """
        final, aside = self.folder / path, None
        part = self.part(path)
        self._bad(path).unlink(missing_ok=True)
        if final.exists() and digest(final) != digest(part):
            aside = set_aside(final)
        part.replace(final)
        _sync_folder(final.parent)
        return aside

    def owner(self) -> Owner | None:
        """Which ledger's run was last at work in the output folder, as far as its mark can be read."""
        try:
            said = json.loads(self._mark.read_text(encoding="utf-8"))
            return Owner(**said | {"original": said.pop("inode") == self._mark.parent.stat().st_ino})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def sign(self, owner: Owner) -> None:
        """Leave the mark of a run in the output folder, durably.

        Raises:
            StorageError: the folder does not take it.
        """
        said = {"ledger_id": owner.ledger_id, "run_id": owner.run_id, "batches": owner.batches, "world": owner.world}
        draft = self._mark.with_name(f"{self._mark.name}.part")
        try:
            self._mark.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("w", encoding="utf-8") as file:
                json.dump(said | {"inode": self._mark.parent.stat().st_ino}, file)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._mark)
            _sync_folder(self._mark.parent)
        except OSError as error:
            raise StorageError(f"cannot write {self._mark}: {error.strerror}", "Free some space.") from error

    def has_item(self, key: str, audio_format: str) -> bool:
        """Whether audio for the item lies in its place, whoever knows of it."""
        return (self.folder / self.item_path(key, audio_format)).exists()

    def keep(self, out_dir: str, output: str, key: str, audio_format: str, sha256: str) -> str | None:
        """Make sure that audio of this content lies at the item's path, from there or from a row's output.

        Returns the path, None when neither has it.
        """
        path = self.item_path(key, audio_format)
        final, from_row = self._home / out_dir / path, self._home / out_dir / output
        if not self.holds(out_dir, path, sha256):
            if not from_row.is_file() or digest(from_row) != sha256:
                return None
            if final.is_file():
                set_aside(final)
            place(from_row, final)
        _sync_folder(final.parent)
        return path

    def prepare(self) -> None:
        """Make sure that audio can be written, before any is bought.

        Raises:
            UsageError: the output folder cannot be written.
            StorageError: the disk is full.
        """
        probe = self.folder / ITEMS / ".probe.part"
        try:
            probe.parent.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"x")
            probe.unlink()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageError(f"no room in {self.folder}: {error.strerror}", "Free some space.") from error
            raise UsageError(f"cannot write to {self.folder}: {error.strerror}", "Choose another --out-dir.") from error

    def holds(self, out_dir: str, path: str, sha256: str) -> bool:
        """Whether the file at the item path `path` below `out_dir` is there with this content."""
        final = self._home / out_dir / path
        return final.is_file() and digest(final) == sha256

    def leftovers(self) -> Iterator[Path]:
        """What unfinished downloads left behind."""
        for folder in (self.folder / ITEMS).glob("*/"):
            with os.scandir(folder) as found:
                yield from (Path(one.path) for one in found if one.name.startswith(".") and one.name.endswith(".part"))

    def stamps(self, out_dir: str, folders: Sequence[str]) -> dict[str, list[int] | None]:
        """By what folders below `out_dir` are known not to have gained or lost a file; None for one that is not there.

        Files of theirs that were written over are not noticed.
        """
        return {folder: stamp(self._home / out_dir / folder) for folder in folders}

    def conflict(self, output: Output) -> str | None:
        """Why the row's output path cannot be written: something is there that is not ours. None when it can."""
        target = self._target(output)
        if not target.exists() and not target.is_symlink():
            return self._blocked(target)
        if self._is_copy(target, output.source, output.sha256):
            return None
        if output.linked_output == output.output and self._is_copy(target, output.linked_source, output.linked_sha256):
            return None
        return f"{target} exists and is not a file of this ledger: move it away, or choose another output"

    def is_item(self, output: Output) -> bool:
        """Whether what lies at the row's output is the very file that was made for its item."""
        folder = self._home / output.out_dir / self.item_path(output.key, "*")
        return any(_same_file(path, self._target(output)) for path in folder.parent.glob(folder.name))

    def digest_at(self, output: Output) -> str | None:
        """The digest of what lies at the row's output, None when that is no file."""
        target = self._target(output)
        return digest(target) if target.is_file() else None

    def link(self, output: Output, *, replace: bool = False) -> str | None:
        """Put the item's audio at the row's output. Returns why that could not be, or None when it is there.

        With `replace`, what lies there is known to be audio of the ledger's own.
        """
        target = self._target(output)
        source = self._home / (output.source or "")
        if not source.is_file():
            return f"the audio file {source} is gone"
        if target.exists() and _same_file(target, source):
            return None
        if not replace and (reason := self.conflict(output)) is not None:
            return reason
        place(source, target)
        return None

    def is_there(self, out_dir: str, output: str) -> bool:
        """Whether something is at the output path. Asked a million times in a row, so in plain strings."""
        return os.path.exists(os.path.join(self._home, out_dir, output))  # noqa: PTH110, PTH118

    def is_free(self, out_dir: str, output: str) -> bool:
        """Whether nothing is at the output path, nor in the way to it. Of outputs in a row, one folder is looked at."""
        target = os.path.join(self._home, out_dir, output)  # noqa: PTH118
        if os.path.lexists(target):
            return False
        folder = target.rpartition("/")[0]
        if folder != self._free_folder:
            self._free_folder = folder if self._blocked(Path(target)) is None else None
        return folder == self._free_folder

    def _target(self, output: Output) -> Path:
        return self._home / output.out_dir / output.output

    def _is_copy(self, target: Path, source: str | None, sha256: str | None) -> bool:
        if source is None or sha256 is None or not target.is_file():
            return False
        return _same_file(target, self._home / source) or digest(target) == sha256

    def _blocked(self, target: Path) -> str | None:
        for parent in target.parents:
            if parent.exists() or parent.is_symlink():
                return None if parent.is_dir() else f"{parent} is in the way: it is not a folder"
        return None


def stamp(path: Path) -> list[int] | None:
    """By what a file or folder is known to be as it was: number, size, times in nanoseconds; None when it is not there.

    A change within the clock's own grain of the one before does not show.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def digest(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def place(source: Path, target: Path) -> None:
    """Have the content of `source` at `target` as well, whole or not at all; what was at `target` is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.part")
    _link(source, draft)
    draft.replace(target)


def set_aside(path: Path) -> Path:
    """Give the file a name that tells its content, beside the one it had. Returns that; nothing is overwritten."""
    mark, number = digest(path)[:8], 0
    aside = path.with_name(f"{path.stem}.{mark}{path.suffix}")
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.stem}.{mark}-{number}{path.suffix}")
    return path.rename(aside)


def _link(source: Path, draft: Path) -> None:
    draft.unlink(missing_ok=True)
    try:
        draft.hardlink_to(source)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        _copy(source, draft)


def _copy(source: Path, draft: Path) -> None:
    shutil.copyfile(source, draft)
    with draft.open("rb+") as file:
        os.fsync(file.fileno())


def _same_file(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
