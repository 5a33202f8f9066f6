"""Audio in an object store: an object per item under `.items/`, and a copy of it for each row.

An object appears whole, and only if none has its name, so runs on several machines cannot disturb each other. What is
being downloaded is on disk, in a temporary folder, until it is verified.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from batcher import files
from batcher.audio import content, objects
from batcher.audio.content import TEMPORARY, digest
from batcher.audio.objects import Found, OutageError
from batcher.audio.store import BAD, ITEMS, Difference, Kind, Owners, Store
from batcher.clock import Clock
from batcher.errors import UsageError
from batcher.ledger.lifecycle.repairs import SavedFile
from batcher.ledger.records import FolderNames, Output

_TRIES: Final = 5
"""Attempts at an object that a store reports as existing, and then does not have."""
_FEW: Final = 100
"""Up to this many outputs are looked up one by one; for more, all names are listed."""
_PROBE: Final = f"{ITEMS}/.probe"


class Bucket(Store):
    """A prefix in an object store. `home` is the ledger's folder, `place` the URL."""

    is_remote = True

    def __init__(self, home: Path, place: str) -> None:
        self._home = home
        self._lock = threading.Lock()
        self._scratch: Path | None = None
        self._drafts: dict[str, Path] = {}  # by path: written, and not stored yet
        self._seen: dict[str, bool] = {}  # by path: whether it existed when it was looked for
        self._is_listed = False  # `_seen` has all that existed
        self._set_aside: set[str] = set()  # digests of what may be replaced, since there is a copy
        self.place: str = place
        self.out_dir = place

    def shown(self, path: str) -> str:
        """The URL."""
        return f"{self.place}/{path}"

    def prepare(self) -> None:
        """Check that objects can be created, and that the store refuses to create one twice."""
        url = self.shown(_PROBE)
        try:
            is_new = self._creates(url)
            if is_new and self._creates(url):
                raise UsageError(
                    f"{self.place} overwrites objects: its store ignores the condition `If-None-Match: *`",
                    "Audio could be lost there. Choose a store that supports conditional writes, or a folder.",
                )
            if not is_new and objects.head(url) is None:
                raise OutageError(errno.EIO, "the store neither has the object nor creates it", url)
        except OSError as error:
            raise objects.trouble(f"cannot write to {self.place}", error) from error

    def _creates(self, url: str) -> bool:
        try:
            objects.create(url, b"batcher: does this store refuse to create an object twice?\n")
        except FileExistsError:
            return False
        return True

    def part(self, path: str) -> Path:
        """Path of the unfinished download, in a temporary folder that is removed with this object."""
        with self._lock:
            if self._scratch is None:
                self._scratch = Path(tempfile.mkdtemp(prefix=TEMPORARY))
                weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)
        return self._scratch / f"{PurePosixPath(path).name}.part"

    def leftovers(self) -> Iterator[Path]:
        """None: temporary files are the system's to clean up."""
        return iter(())

    def keep_bad(self, path: str) -> str:
        """Store a download that failed its checks in place of an earlier one."""
        part, bad = self.part(path), str(PurePosixPath(path).with_suffix(BAD))
        objects.write(self.shown(bad), part)
        part.unlink()
        return bad

    def bad(self, key: str) -> list[str]:
        """The item's download that failed its checks, even if good audio has arrived since; none if it is unknown."""
        url = self.shown(f"{ITEMS}/{key[:2]}/{key}{BAD}")
        try:
            return [url] * (objects.head(url) is not None)
        except (OSError, UsageError):
            return []

    # The audio of items.

    def publish(self, path: str) -> str | None:
        """Create the item's object from the synced download, which stays until the caller removes it."""
        part = self.part(path)
        return self._store(path, part, digest(part))

    def restore(self, path: str, source: str) -> str | None:
        """Create the item's object with the content of `source`."""
        with content.on_disk(self._home, source) as intact:
            return self._store(path, intact, digest(intact))

    def _store(self, path: str, file: Path, sha256: str) -> str | None:
        """Create an item's object. Another one there is set aside first; returns to where."""
        url, aside = self.shown(path), None
        for _ in range(_TRIES):
            found = self._create(url, file, sha256)
            if found is None:
                return aside
            aside = self.set_aside(path)
            if self._replace(url, file, found, sha256):
                return aside
        raise OutageError(errno.EIO, "others write to it again and again", url)

    def _create(self, url: str, file: Path, sha256: str) -> Found | None:
        """Create the object, unless it has this content already. Returns what is there instead, if anything.

        A store reports an object as existing, too, if our own first try created it and its answer was lost, or if it
        was busy with another request for that name.
        """
        for _ in range(_TRIES):
            try:
                objects.create(url, file, sha256)
            except FileExistsError:
                found = objects.head(url)
                if found is None:
                    continue
                return None if self._has(url, found, sha256, file.stat().st_size) else found
            return None
        raise OutageError(errno.EIO, "the store neither has the object nor creates it", url)

    def _replace(self, url: str, file: Path, found: Found, sha256: str) -> bool:
        """Replace the object that was found. Returns whether it has this content now; an answer may have been lost."""
        try:
            objects.replace(url, file, found, sha256)
        except FileExistsError:
            now = objects.head(url)
            return now is not None and self._has(url, now, sha256, file.stat().st_size)
        return True

    def _has(self, url: str, found: Found, sha256: str | None, size: int | None = None) -> bool:
        """Whether the object has this content: by its attribute, or, if it was written by others, by reading it."""
        if sha256 is None or (size is not None and size != found.size):
            return False
        return (found.sha256 or content.digest_of(self._home, url)) == sha256

    def holds(self, path: str, sha256: str) -> bool:
        """Whether the item's object has this content."""
        url = self.shown(path)
        found = objects.head(url)
        return found is not None and self._has(url, found, sha256)

    def keep(self, output: str, key: str, audio_format: str, sha256: str) -> str | None:
        """Make sure that the item's object has this content."""
        path = self.item_path(key, audio_format)
        if not self.holds(path, sha256):
            if not self.holds(output, sha256):
                return None
            self.restore(path, self.shown(output))
        return path

    # The outputs of rows.

    def ignores_case(self) -> bool:
        """Object stores never do."""
        return False

    def folder_of(self, output: str) -> str:  # noqa: ARG002 - wherever it is
        """The whole prefix: there are no folders."""
        return self.place

    def names(
        self,
        folder: str,  # noqa: ARG002 - names are not read
        known: FolderNames | None,
        *,
        reserved: Sequence[str],  # noqa: ARG002
        clock: Clock,  # noqa: ARG002
    ) -> FolderNames | None:
        """Always the same: listing all names takes too long for each run, so linked outputs count as being there.

        `run --rescan` and `verify` look at each.
        """
        return known or FolderNames(0, None, trusted=False)

    def expect(self, paths: Sequence[str] | None) -> None:
        """Look up a few names one by one; for more, list all: a request for a thousand names."""
        if paths is not None and len(paths) <= _FEW:
            found = [path for path in paths if objects.head(self.shown(path)) is not None]
            self._seen |= dict.fromkeys(paths, False) | dict.fromkeys(found, True)
        elif not self._is_listed:
            self._seen = dict.fromkeys(objects.names_below(self.place), True)
            self._is_listed = True

    def is_there(self, output: str) -> bool:
        """Whether there is an object, or was when `expect` looked."""
        if output in self._seen or self._is_listed:
            return self._seen.get(output, False)
        return objects.head(self.shown(output)) is not None

    def is_free(self, output: str) -> bool:
        """Whether there is no object."""
        return not self.is_there(output)

    def is_same_entry(self, output: Output, out_dir: str, path: str) -> bool:
        """Whether both have the same URL."""
        return self.shown(output.output) == f"{out_dir}/{path}"

    def conflict(self, output: Output) -> str | None:
        """Why the row's output cannot be written."""
        url = self.shown(output.output)
        found = objects.head(url)
        return None if found is None or self._is_ours(output, url, found) else _foreign(url)

    def _is_ours(self, output: Output, url: str, found: Found) -> bool:
        """Whether the object is the row's audio, that which was last linked there, or a copy of what is set aside."""
        if any(self._has(url, found, sha256) for sha256 in (output.sha256, *self._set_aside)):
            return True
        return output.linked_output == output.output and self._has(url, found, output.linked_sha256)

    def item_at(self, output: Output) -> tuple[str, str] | None:  # noqa: ARG002 - never known
        """None: a copy does not show which item it belongs to, other than by its content."""
        return None

    def digest_at(self, output: str) -> str | None:
        """SHA-256 of the object at the output, as its attribute has it, or read."""
        url = self.shown(output)
        found = objects.head(url)
        return None if found is None else found.sha256 or content.digest_of(self._home, url)

    def preserve(self, output: Output, owners: Owners, sha256: str | None) -> bool:
        """Make sure that the audio at the row's output is at the path of an owner."""
        if sha256 is None or self.digest_at(output.output) != sha256:
            return False
        locations = [f"{out_dir}/{self.item_path(key, ending)}" for out_dir, key, ending in owners]
        if not any(content.digest_of(self._home, one) == sha256 for one in locations):
            self._preserve(self.shown(output.output), locations[0], sha256)
        return True

    def _preserve(self, url: str, location: str, sha256: str) -> None:
        """Copy the object, which has this content, to an item's own location, unless that has it already."""
        if not location.startswith(f"{self.place}/"):
            if content.digest_of(self._home, location) != sha256:
                raise OSError(errno.EEXIST, f"it is the only copy of audio that belongs to {location}", url)
            return
        path = location.removeprefix(f"{self.place}/")
        if not self.holds(path, sha256):
            self.restore(path, url)

    def link(self, output: Output, *, replace: bool = False) -> str | None:
        """Copy the item's audio to the row's output."""
        url, source, sha256 = self.shown(output.output), output.source or "", output.sha256 or ""
        part = self.part(source)
        if part.exists() and digest(part) == sha256:  # it has just been published
            return self._put(output, part, replace=replace)
        found = objects.head(url)
        if found is not None and self._has(url, found, sha256):
            return None
        try:
            with content.on_disk(self._home, source) as file:
                if file.is_file() and digest(file) == sha256:
                    return self._put(output, file, replace=replace)
        except FileNotFoundError:
            pass
        return f"the audio at {source} is missing or changed; `batcher verify --heal` repairs it"

    def _put(self, output: Output, file: Path, *, replace: bool) -> str | None:
        url, sha256 = self.shown(output.output), output.sha256 or ""
        found = self._create(url, file, sha256)
        if found is None:
            return None
        if not replace and not self._is_ours(output, url, found):
            return _foreign(url)
        before = output.linked_sha256
        if output.linked_source is not None and before is not None and self._has(url, found, before):
            self._preserve(url, output.linked_source, before)
        return None if self._replace(url, file, found, sha256) else f"{url} was changed meanwhile"

    # Reading back.

    def exists(self) -> bool:
        """A prefix needs no object to be there."""
        return True

    def item_fault(self, saved: SavedFile) -> Difference | None:
        """How the item's object differs from the ledger."""
        found = objects.head(self.shown(saved.path))
        if found is None:
            return Difference(Kind.MISSING)
        if found.size == saved.bytes and content.digest_of(self._home, self.shown(saved.path)) == saved.sha256:
            return None
        return Difference(Kind.TRUNCATED if found.size < saved.bytes else Kind.CHANGED)

    def output_fault(
        self,
        output: Output,
        saved: SavedFile,
        of_item: Difference | None,  # noqa: ARG002 - a copy shares no faults
        ours: Set[str],
    ) -> Difference | None:
        """How the row's copy differs from the ledger."""
        sha256 = content.digest_of(self._home, self.shown(output.output))
        if sha256 is None:
            return Difference(Kind.MISSING)
        return None if sha256 == saved.sha256 else Difference(Kind.REPLACED, ours=sha256 in ours)

    def set_aside(self, path: str) -> str:
        """Copy the object to a name after its content. It stays until it is replaced: no object is ever deleted."""
        name = PurePosixPath(path)
        with content.on_disk(self._home, self.shown(path)) as file:
            sha256 = digest(file)
            aside = self.shown(str(name.with_name(f"{name.stem}.{sha256[:8]}{name.suffix}")))
            if self._create(aside, file, sha256) is not None:
                raise FileExistsError(errno.EEXIST, "there is another object of this name", aside)
        self._set_aside.add(sha256)
        return aside

    def links(self, outputs: Sequence[str], page: Path, seconds: float | None) -> list[str]:  # noqa: ARG002 - absolute
        """Web addresses."""
        try:
            return objects.links([self.shown(output) for output in outputs], seconds)
        except OSError as error:
            raise objects.trouble(f"cannot make links to {self.place}", error) from error

    # Files beside the audio.

    def identity(self) -> str:
        """The URL: that of a copy differs."""
        return self.place

    def read(self, path: str) -> bytes | None:
        """The content of a small object.

        Raises:
            UsageError: it may not be read.
            StorageError: the store does not answer.
        """
        url = self.shown(path)
        try:
            return objects.read(url, files.MAX_CONFIG_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise objects.trouble(f"cannot read {url}", error) from error

    @contextmanager
    def replacing(self, path: str, *, encoding: str | None = None) -> Iterator[IO[Any]]:
        """A new file, in the temporary folder until `flush` stores it."""
        draft = self.part(path)
        with files.replacing(draft, encoding=encoding) as file:
            yield file
        self._drafts[path] = draft

    def flush(self) -> None:
        """Store the files as objects, in place of those that are there."""
        for path in list(self._drafts):
            objects.write(self.shown(path), self._drafts[path])
            self._drafts.pop(path).unlink()

    def on_disk(self, path: str, folder: Path) -> Path:
        """Download the object into the folder."""
        with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
            objects.download(self.shown(path), file)
        return Path(file.name)

    def stamp(self, path: str) -> str | None:
        """The version of the object."""
        found = objects.head(self.shown(path))
        return None if found is None else "|".join((str(found.size), *found.version.values()))

    def ending_with(self, ending: str) -> list[str]:
        """Names of the objects directly below the prefix that have this ending."""
        return sorted(name for name in objects.names_in(self.place) if name.endswith(ending))


def _foreign(url: str) -> str:
    return f"{url} exists and is not an object of this ledger; move it or choose another output path"
