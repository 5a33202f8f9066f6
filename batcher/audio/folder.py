"""Audio in a folder on disk: one file per item under `OUT/.items/`, and a hard link to it for each row.

Files appear at their path atomically: written under a dot-name in the same folder, synced, then renamed. Files that
are not ours are never replaced.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from batcher import files
from batcher.audio import content
from batcher.audio.content import digest
from batcher.audio.fingerprints import AddedNames, read_names, stamp
from batcher.audio.placing import draft_of, place, set_aside, sync_folder
from batcher.audio.store import BAD, ITEMS, Difference, Kind, Owners, Store
from batcher.clock import Clock
from batcher.errors import StorageError, UsageError
from batcher.ledger.lifecycle.repairs import SavedFile
from batcher.ledger.records import FolderNames, Output
from batcher.manifest.confusable import folded


class Folder(Store):
    """An output folder on disk. `home` is the ledger's folder. `added` notes the names that `link` adds to folders."""

    is_remote = False

    def __init__(self, home: Path, place: Path, added: AddedNames | None = None) -> None:
        self._home = home
        self._free_folder: str | None = None
        self._inside: set[Path] = set()  # folders of items' files
        self._items_by_inode: dict[int, str] | None = None
        self.place: Path = place
        self.out_dir = os.path.relpath(place, home)
        self.added = added or AddedNames()

    def shown(self, path: str) -> str:
        """The absolute path."""
        return str(self.place / path)

    def part(self, path: str) -> Path:
        """Path of the unfinished download for the item path `path`. Creates its folder.

        Raises:
            StorageError: a link in the output folder leads out of it.
        """
        final = self.place / path
        self._need_inside(self.place, final)
        final.parent.mkdir(parents=True, exist_ok=True)
        return final.with_name(f".{final.name}.part")

    def _need_inside(self, folder: Path, item: Path) -> None:
        """Check that the folder of an item's file is really inside the output folder `folder`, once for each."""
        if item.parent in self._inside:
            return
        if files.leads_out(folder, item):
            raise StorageError(f"{item.parent} leads out of the output folder", "Replace the link by a folder.")
        self._inside.add(item.parent)

    def keep_bad(self, path: str) -> str:
        """Set aside a download that failed its checks. Only the user may read it: it may be anything."""
        part = self.part(path)
        part.chmod(0o600)
        return os.path.relpath(part.replace(self._bad(path)), self.place)

    def bad(self, key: str = "*") -> list[str]:
        """Downloads of this item, or of all items, that failed their checks."""
        return list(map(str, (self.place / ITEMS).glob(f"{key[:2] if key != '*' else key}/{key}{BAD}")))

    def _bad(self, path: str) -> Path:
        return (self.place / path).with_suffix(BAD)

    def publish(self, path: str) -> str | None:
        """Move a synced download to its final path, durably."""
        final, aside = self.place / path, None
        part = self.part(path)
        self._bad(path).unlink(missing_ok=True)
        if os.path.lexists(final) and not (final.is_file() and digest(final) == digest(part)):
            aside = str(set_aside(final))
        part.replace(final)
        sync_folder(final.parent)
        return aside

    def restore(self, path: str, source: str) -> str | None:
        """Link or copy `source` to the item path."""
        final = self.place / path
        aside = str(set_aside(final)) if final.exists() else None
        with content.on_disk(self._home, source) as intact:
            place(intact, final)
        self._bad(path).unlink(missing_ok=True)
        return aside

    def keep(self, output: str, key: str, audio_format: str, sha256: str) -> str | None:
        """Make sure that the item's path holds this content."""
        path = self.item_path(key, audio_format)
        final, from_row = self.place / path, self.place / output
        if not self.holds(path, sha256):
            if not from_row.is_file() or digest(from_row) != sha256:
                return None
            self._need_inside(self.place, final)
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
        folder = self.part(f"{ITEMS}/probe").parent
        try:
            with tempfile.TemporaryFile(dir=folder) as file:  # without a name that another run's could have
                file.write(b"x")
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageError(f"cannot write to {self.place}: {error.strerror}", "Free some space.") from error
            raise UsageError(f"cannot write to {self.place}: {error.strerror}", "Choose another --out-dir.") from error

    def ignores_case(self) -> bool:
        """Whether names in the output folder, or in the folder that will contain it, that differ by case are one."""
        folder = next(path for path in (self.place / ITEMS, self.place, *self.place.parents) if path.exists())
        return _ignores_case(folder)

    def is_same_entry(self, output: Output, out_dir: str, path: str) -> bool:
        """Whether both are one entry, perhaps by a link to a folder or on a disk that ignores case."""
        target, twin = self._target(output), self._home / out_dir / path
        if os.path.realpath(target.parent) != os.path.realpath(twin.parent):
            return False
        return target.name == twin.name or (folded(target.name) == folded(twin.name) and _ignores_case(target))

    def holds(self, path: str, sha256: str) -> bool:
        """Whether the item path has this content."""
        final = self.place / path
        return final.is_file() and digest(final) == sha256

    def leftovers(self) -> Iterator[Path]:
        """Files left behind by unfinished downloads."""
        for one in self._item_entries():
            if one.name.startswith(".") and one.name.endswith(".part") and not one.is_dir(follow_symlinks=False):
                yield Path(one.path)

    def folder_of(self, output: str) -> str:
        """The folder of an output, relative to the ledger's."""
        return os.path.normpath(os.path.join(self.out_dir, os.path.dirname(output)))  # noqa: PTH118, PTH120

    def names(
        self, folder: str, known: FolderNames | None, *, reserved: Sequence[str], clock: Clock
    ) -> FolderNames | None:
        """The names of files in a folder of outputs; see `read_names`."""
        ignored = reserved if folder == self.folder_of("") else ()
        return read_names(self._home / folder, known, ignored=ignored, clock=clock)

    def conflict(self, output: Output) -> str | None:
        """Why the row's output path cannot be written."""
        target = self._target(output)
        if (why := self._blocked(target)) is not None:
            return why
        if not target.exists() and not target.is_symlink():
            return None
        if self._is_copy(target, output.source, output.sha256):
            return None
        if output.linked_output == output.output and self._is_copy(target, output.linked_source, output.linked_sha256):
            return None
        return f"{target} exists and is not a file of this ledger; move it or choose another output path"

    def item_at(self, output: Output) -> tuple[str, str] | None:
        """The item with the same inode. The first call lists all items' files."""
        if self._items_by_inode is None:
            entries = (one for one in self._item_entries() if not one.name.startswith("."))
            self._items_by_inode = {one.inode(): one.name for one in entries}
        target = self._target(output)
        name = self._items_by_inode.get(target.stat().st_ino) if target.is_file() else None
        if name is None:
            return None
        key, _, ending = name.partition(".")
        return key, ending

    def _item_entries(self) -> Iterator[os.DirEntry[str]]:
        for folder in (self.place / ITEMS).glob("*/"):
            with os.scandir(folder) as found:
                yield from found

    def digest_at(self, output: str) -> str | None:
        """SHA-256 of the file at the output."""
        target = self.place / output
        return digest(target) if target.is_file() else None

    def link(self, output: Output, *, replace: bool = False) -> str | None:
        """Link the item's audio to the row's output, or copy it there."""
        source = output.source or ""
        if files.is_url(source) and self.digest_at(output.output) == output.sha256:
            return None
        try:
            with content.on_disk(self._home, source) as on_disk:
                return self._link(output, on_disk, replace=replace)
        except FileNotFoundError:
            return f"the audio file {source} is missing"

    def _link(self, output: Output, source: Path, *, replace: bool) -> str | None:
        target = self._target(output)
        if not source.is_file():
            return f"the audio file {source} is missing"
        if target.exists() and _same_file(target, source):
            draft_of(target).unlink(missing_ok=True)  # of a link that was cut short, to another take
            return None
        reason = self._blocked(target) if replace else self.conflict(output)
        if reason is not None:
            return reason
        for own, sha256 in ((output.source, output.sha256), (output.linked_source, output.linked_sha256)):
            if own is not None and target.is_file():
                self._preserve(target, own, sha256)
        is_new = not os.path.lexists(target)
        place(source, target)
        if is_new:
            self.added.add(self.folder_of(output.output), target.name)
        return None

    def preserve(self, output: Output, owners: Owners, sha256: str | None) -> bool:
        """Make sure that the audio at the row's output is at the path of an owner."""
        target = self._target(output)
        if sha256 is None or self.digest_at(output.output) != sha256:
            return False
        locations = [f"{out_dir}/{self.item_path(key, ending)}" for out_dir, key, ending in owners]
        if not any(content.digest_of(self._home, one) == sha256 for one in locations):
            self._preserve(target, locations[0], sha256)
        return True

    def _preserve(self, target: Path, location: str, sha256: str | None) -> None:
        """Link or copy `target`, if it has this content, to an item's own location, unless that has it already."""
        final = self._home / location
        if _same_file(target, final) or digest(target) != sha256 or content.digest_of(self._home, location) == sha256:
            return
        if files.is_url(location):
            raise OSError(errno.EEXIST, f"it is the only copy of audio that belongs to {location}", str(target))
        if os.path.lexists(final):
            set_aside(final)
        place(target, final)
        sync_folder(final.parent)

    def expect(self, paths: Sequence[str] | None) -> None:
        """Do nothing: looking for files is quick."""

    def is_there(self, output: str) -> bool:
        """Whether the path exists. Called a million times in a row, hence plain strings."""
        return os.path.exists(os.path.join(self.place, output))  # noqa: PTH110, PTH118

    def is_free(self, output: str) -> bool:
        """Whether the output can be created. Checks the folder once for consecutive outputs."""
        target = os.path.join(self.place, output)  # noqa: PTH118
        if os.path.lexists(target):
            return False
        folder = target.rpartition("/")[0]
        if folder != self._free_folder:
            self._free_folder = folder if self._blocked(Path(target)) is None else None
        return folder == self._free_folder

    def _target(self, output: Output) -> Path:
        return self.place / output.output

    def _is_copy(self, target: Path, source: str | None, sha256: str | None) -> bool:
        if source is None or not target.is_file():
            return False
        return _same_file(target, self._home / source) or digest(target) == sha256

    def _blocked(self, target: Path) -> str | None:
        """Why the folder of an output cannot be used. None if it can."""
        if target.parent != self.place and files.leads_out(self.place, target):
            return f"{target.parent} leads out of the output folder: replace the link by a folder"
        for parent in target.parents:
            if parent.exists() or parent.is_symlink():
                return None if parent.is_dir() else f"{parent} is in the way: it is not a folder"
        return None

    def exists(self) -> bool:
        """Whether the folder is there: its disk may not be mounted."""
        return self.place.is_dir()

    def item_fault(self, saved: SavedFile) -> Difference | None:
        """How the item's file differs from the ledger."""
        path = self.place / saved.path
        if not path.exists() and not path.is_symlink():
            return Difference(Kind.MISSING)
        if not path.is_file():
            return Difference(Kind.REPLACED, ours=False)
        size = path.stat().st_size
        if size == saved.bytes and digest(path) == saved.sha256:
            return None
        return Difference(Kind.TRUNCATED if size < saved.bytes else Kind.CHANGED)

    def output_fault(
        self, output: Output, saved: SavedFile, of_item: Difference | None, ours: Set[str]
    ) -> Difference | None:
        """How the row's output differs from the ledger. A link to the item's file shares its fault."""
        path, source = self._target(output), self._home / saved.out_dir / saved.path
        if not path.exists() and not path.is_symlink():
            return Difference(Kind.MISSING)
        if not path.is_file():
            return Difference(Kind.REPLACED, ours=False)
        if source.is_file() and path.samefile(source):
            return None if of_item is None else Difference(of_item.kind)
        sha256 = digest(path)
        if sha256 == saved.sha256:
            return None
        if _is_set_aside(path, source, saved.key):
            return Difference(Kind.CHANGED)
        if of_item is None and source.is_file() and _is_beginning(path, source):
            return Difference(Kind.TRUNCATED)
        return Difference(Kind.REPLACED, ours=sha256 in ours)

    def set_aside(self, path: str) -> str:
        """Rename the file after its content."""
        return str(set_aside(self.place / path))

    def links(self, outputs: Sequence[str], page: Path, seconds: float | None) -> list[str]:  # noqa: ARG002
        """Links relative to the page; they never contain a scheme."""
        folder = os.path.relpath(self.place.resolve(), page.parent.resolve())
        start = f"./{quote(folder)}/" if folder != "." else "./"
        return [start + quote(output) for output in outputs]

    def identity(self) -> int | None:
        """The inode of the folder of the items' files: that of a copy differs."""
        try:
            return (self.place / ITEMS).stat().st_ino
        except OSError:
            return None

    def read(self, path: str) -> bytes | None:
        """The content of a small file."""
        try:
            return files.read_config(self.place / path)
        except OSError:
            return None

    @contextmanager
    def replacing(self, path: str, *, encoding: str | None = None) -> Iterator[IO[Any]]:
        """A new file that replaces the one at the path, durably, as soon as it is complete."""
        target = self.place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(target, encoding=encoding) as file:
            yield file
        sync_folder(target.parent)

    def flush(self) -> None:
        """Do nothing: `replacing` has written everything."""

    def on_disk(self, path: str, folder: Path) -> Path:  # noqa: ARG002 - it needs no copy
        """The path of the file itself."""
        return self.place / path

    def stamp(self, path: str) -> list[int] | None:
        """Inode, size and times of a file."""
        return stamp(self.place / path)

    def ending_with(self, ending: str) -> list[str]:
        """Names of the files that have this ending."""
        return sorted(path.name for path in self.place.glob(f"*{ending}"))


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


def _ignores_case(path: Path) -> bool:
    """Whether the file or folder, which exists, is also found under its name in the other case."""
    name = path.name.swapcase()
    if name == path.name:  # no letters, as in `/`
        return False
    other = path.with_name(name)
    return os.path.lexists(other) and other.samefile(path)


def _same_file(one: Path, other: Path) -> bool:
    return other.exists() and one.samefile(other)
