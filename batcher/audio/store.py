"""Audio on disk: one file per item under `OUT/.items/`, and a hard link to it for each row.

Files appear at their path atomically: written under a dot-name in the same folder, synced, then renamed. Files that
are not ours are never replaced.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from batcher import files
from batcher.audio.fingerprints import AddedNames, read_names
from batcher.clock import Clock
from batcher.errors import StorageError, UsageError
from batcher.ledger.records import FolderNames, Output
from batcher.manifest.confusable import folded

ITEMS: Final = ".items"
_BAD: Final = ".bad"
_NO_LINKS: Final = (errno.EPERM, errno.ENOSYS, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP)


class Store:
    """The audio of one ledger. `home` is the ledger's folder; new items go below `out_dir`."""

    def __init__(self, home: Path, out_dir: Path) -> None:
        self._home = home
        self._free_folder: str | None = None
        self._inside: set[Path] = set()  # folders of items' files
        self._items_by_inode: dict[str, dict[int, str]] = {}  # by output folder
        self.folder = out_dir
        self.out_dir = os.path.relpath(out_dir, home)
        """The output folder relative to the ledger's, so that both can be moved together."""
        self.added = AddedNames()
        """Names that `link` added to folders, by `folder_of`."""

    def item_path(self, key: str, audio_format: str) -> str:
        """Path of an item's audio, relative to the output folder."""
        return f"{ITEMS}/{key[:2]}/{key}.{audio_format}"

    def part(self, path: str) -> Path:
        """Path of the unfinished download for the item path `path`. Creates its folder.

        Raises:
            StorageError: a link in the output folder leads out of it.
        """
        final = self.folder / path
        self._need_inside(self.folder, final)
        final.parent.mkdir(parents=True, exist_ok=True)
        return final.with_name(f".{final.name}.part")

    def _need_inside(self, folder: Path, item: Path) -> None:
        """Check that the folder of an item's file is really inside the output folder `folder`, once for each."""
        if item.parent in self._inside:
            return
        if files.leads_out(folder, item):
            raise StorageError(f"{item.parent} leads out of the output folder", "Replace the link by a folder.")
        self._inside.add(item.parent)

    def keep_bad(self, path: str) -> Path:
        """Set aside a download that failed its checks, for inspection, until good audio arrives. Returns its path.

        Only the user may read it: it may be anything.
        """
        part = self.part(path)
        part.chmod(0o600)
        return part.replace(self._bad(path))

    def bad(self, key: str = "*") -> Iterator[Path]:
        """Downloads of this item, or of all items, that failed their checks."""
        return (self.folder / ITEMS).glob(f"{key[:2] if key != '*' else key}/{key}{_BAD}")

    def _bad(self, path: str) -> Path:
        return (self.folder / path).with_suffix(_BAD)

    def publish(self, path: str) -> Path | None:
        """Move a synced download to its final path, durably.

        Returns the path to which a different file found there was set aside. None if there was none.
        """
        final, aside = self.folder / path, None
        part = self.part(path)
        self._bad(path).unlink(missing_ok=True)
        if os.path.lexists(final) and not (final.is_file() and digest(final) == digest(part)):
            aside = set_aside(final)
        part.replace(final)
        sync_folder(final.parent)
        return aside

    def has_item(self, key: str, audio_format: str) -> bool:
        """Whether a file exists at the item's path, in the ledger or not."""
        return (self.folder / self.item_path(key, audio_format)).exists()

    def keep(self, out_dir: str, output: str, key: str, audio_format: str, sha256: str) -> str | None:
        """Make sure that the item's path holds this content, copied from the row's output if needed.

        Returns the path. None if neither file has the content.
        """
        path = self.item_path(key, audio_format)
        final, from_row = self._home / out_dir / path, self._home / out_dir / output
        if not self.holds(out_dir, path, sha256):
            if not from_row.is_file() or digest(from_row) != sha256:
                return None
            self._need_inside(self._home / out_dir, final)
            if os.path.lexists(final):
                set_aside(final)
            place(from_row, final)
        sync_folder(final.parent)
        return path

    def prepare(self) -> None:
        """Check that audio can be written, before any is bought.

        Raises:
            UsageError: the output folder is not writable.
            StorageError: the disk is full.
        """
        probe = self.part(f"{ITEMS}/probe")
        try:
            with os.fdopen(files.create(probe), "wb") as file:
                file.write(b"x")
            probe.unlink()
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageError(f"cannot write to {self.folder}: {error.strerror}", "Free some space.") from error
            raise UsageError(f"cannot write to {self.folder}: {error.strerror}", "Choose another --out-dir.") from error

    def ignores_case(self) -> bool:
        """Whether names in the output folder, or in the folder that will contain it, that differ by case are one."""
        folder = next(path for path in (self.folder / ITEMS, self.folder, *self.folder.parents) if path.exists())
        return _ignores_case(folder)

    def is_same_entry(self, output: Output, out_dir: str, path: str) -> bool:
        """Whether the row's output and the output `path` in `out_dir` are one file under two names."""
        target, twin = self._target(output), self._home / out_dir / path
        if os.path.realpath(target.parent) != os.path.realpath(twin.parent):
            return False
        return target.name == twin.name or (folded(target.name) == folded(twin.name) and _ignores_case(target))

    def holds(self, out_dir: str, path: str, sha256: str) -> bool:
        """Whether the item path `path` below `out_dir` holds this content."""
        final = self._home / out_dir / path
        return final.is_file() and digest(final) == sha256

    def leftovers(self) -> Iterator[Path]:
        """Files left behind by unfinished downloads."""
        for one in self._item_entries(self.out_dir):
            if one.name.startswith(".") and one.name.endswith(".part") and not one.is_dir(follow_symlinks=False):
                yield Path(one.path)

    def folder_of(self, out_dir: str, output: str) -> str:
        """The folder of an output, relative to the ledger's."""
        return os.path.normpath(os.path.join(out_dir, os.path.dirname(output)))  # noqa: PTH118, PTH120

    def names(
        self, folder: str, known: FolderNames | None, *, out_dir: str, reserved: Sequence[str], clock: Clock
    ) -> FolderNames | None:
        """The names of files in a folder of outputs, without those that cannot be outputs; see `read_names`.

        In the output folder itself, those have an ending of `reserved` or begin with a dot.
        """
        ignored = reserved if folder == self.folder_of(out_dir, "") else ()
        return read_names(self._home / folder, known, ignored=ignored, clock=clock)

    def conflict(self, output: Output) -> str | None:
        """Why the row's output path cannot be written, usually because a foreign file is there. None if it can."""
        target = self._target(output)
        if (why := self._blocked(self._home / output.out_dir, target)) is not None:
            return why
        if not target.exists() and not target.is_symlink():
            return None
        if self._is_copy(target, output.source, output.sha256):
            return None
        if output.linked_output == output.output and self._is_copy(target, output.linked_source, output.linked_sha256):
            return None
        return f"{target} exists and is not a file of this ledger; move it or choose another output path"

    def item_at(self, output: Output) -> tuple[str, str] | None:
        """Key and file extension of the item whose own file is at the row's output (the same inode), or None.

        The first call lists all items' files in the output folder.
        """
        inodes = self._items_by_inode.get(output.out_dir)
        if inodes is None:
            files = (one for one in self._item_entries(output.out_dir) if not one.name.startswith("."))
            inodes = {one.inode(): one.name for one in files}
            self._items_by_inode[output.out_dir] = inodes
        target = self._target(output)
        name = inodes.get(target.stat().st_ino) if target.is_file() else None
        if name is None:
            return None
        key, _, ending = name.partition(".")
        return key, ending

    def _item_entries(self, out_dir: str) -> Iterator[os.DirEntry[str]]:
        for folder in (self._home / out_dir / ITEMS).glob("*/"):
            with os.scandir(folder) as found:
                yield from found

    def digest_at(self, output: Output) -> str | None:
        """SHA-256 of the file at the row's output. None if there is no file."""
        target = self._target(output)
        return digest(target) if target.is_file() else None

    def link(self, output: Output, *, replace: bool = False) -> str | None:
        """Link the item's audio to the row's output. Returns why that failed. None on success.

        Audio of the ledger that is replaced there stays at its item's path, and is restored to it if it is missing.
        `replace`: skip the check for foreign files; the caller has called `preserve`.
        """
        target = self._target(output)
        source = self._home / (output.source or "")
        if not source.is_file():
            return f"the audio file {source} is missing"
        if target.exists() and _same_file(target, source):
            _draft_of(target).unlink(missing_ok=True)  # of a link that was cut short, to another take
            return None
        reason = self._blocked(self._home / output.out_dir, target) if replace else self.conflict(output)
        if reason is not None:
            return reason
        for own, sha256 in ((output.source, output.sha256), (output.linked_source, output.linked_sha256)):
            if own is not None and target.is_file() and not _same_file(target, self._home / own):
                self._preserve(target, self._home / own, sha256)
        is_new = not os.path.lexists(target)
        place(source, target)
        if is_new:
            self.added.add(self.folder_of(output.out_dir, output.output), target.name)
        return None

    def preserve(self, output: Output, owners: Sequence[tuple[str, str, str]]) -> None:
        """Make sure that the audio at the row's output, which is about to be replaced, is at an item's path.

        `owners` are the output folder, key and format of the items that it belongs to.
        """
        target = self._target(output)
        paths = [self._home / out_dir / self.item_path(key, ending) for out_dir, key, ending in owners]
        sha256 = digest(target)
        if not any(path.is_file() and (_same_file(target, path) or digest(path) == sha256) for path in paths):
            self._preserve(target, paths[0], sha256)

    def _preserve(self, target: Path, final: Path, sha256: str | None) -> None:
        """Link or copy `target`, if it has this content, to the item's path `final`, unless that has it already."""
        if digest(target) != sha256 or (final.is_file() and digest(final) == sha256):
            return
        if os.path.lexists(final):
            set_aside(final)
        place(target, final)
        sync_folder(final.parent)

    def is_there(self, out_dir: str, output: str) -> bool:
        """Whether the output path exists. Called a million times in a row, hence plain strings."""
        return os.path.exists(os.path.join(self._home, out_dir, output))  # noqa: PTH110, PTH118

    def is_free(self, out_dir: str, output: str) -> bool:
        """Whether the output path does not exist and can be created. Checks the folder once for consecutive outputs."""
        target = os.path.join(self._home, out_dir, output)  # noqa: PTH118
        if os.path.lexists(target):
            return False
        folder = target.rpartition("/")[0]
        if folder != self._free_folder:
            self._free_folder = folder if self._blocked(self._home / out_dir, Path(target)) is None else None
        return folder == self._free_folder

    def _target(self, output: Output) -> Path:
        return self._home / output.out_dir / output.output

    def _is_copy(self, target: Path, source: str | None, sha256: str | None) -> bool:
        if source is None or sha256 is None or not target.is_file():
            return False
        return _same_file(target, self._home / source) or digest(target) == sha256

    def _blocked(self, out_dir: Path, target: Path) -> str | None:
        """Why the folder of an output cannot be used. None if it can."""
        if target.parent != out_dir and files.leads_out(out_dir, target):
            return f"{target.parent} leads out of the output folder: replace the link by a folder"
        for parent in target.parents:
            if parent.exists() or parent.is_symlink():
                return None if parent.is_dir() else f"{parent} is in the way: it is not a folder"
        return None


def digest(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with files.reading(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def place(source: Path, target: Path) -> None:
    """Link or copy `source` to `target` atomically, replacing `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft_of(target)
    _link(source, draft)
    draft.replace(target)


def _draft_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.part")


def set_aside(path: Path) -> Path:
    """Rename the file after its content, in the same folder, without overwriting anything. Returns the new path.

    What is not a regular file, or a link to one, is renamed too.
    """
    name, number = f"{path.stem}.{digest(path)[:8] if path.is_file() else 'aside'}", 0
    aside = path.with_name(f"{name}{path.suffix}")
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{name}-{number}{path.suffix}")
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
    with files.reading(source) as original, os.fdopen(files.create(draft), "wb") as copy:
        shutil.copyfileobj(original, copy)
        copy.flush()
        os.fsync(copy.fileno())


def _ignores_case(path: Path) -> bool:
    """Whether the file or folder, which exists, is also found under its name in the other case."""
    name = path.name.swapcase()
    if name == path.name:  # no letters, as in `/`
        return False
    other = path.with_name(name)
    return os.path.lexists(other) and other.samefile(path)


def _same_file(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
