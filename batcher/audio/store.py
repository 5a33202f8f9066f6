"""Where audio is stored: what an output folder can do, be it a folder on disk or a prefix in an object store.

An item's audio is there once, under `.items/`, and under the name of each of its rows. It appears there whole and
verified, and never in place of what is not ours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence, Set
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import IO, Any, ClassVar, Final, NamedTuple

from batcher.clock import Clock
from batcher.ledger.lifecycle.repairs import SavedFile
from batcher.ledger.records import FolderNames, Output

ITEMS: Final = ".items"
BAD: Final = ".bad"

Owners = Sequence[tuple[str, str, str]]
"""Items that audio belongs to: output folder, key, file extension."""


class Kind(StrEnum):
    """What is wrong with stored audio."""

    MISSING = "missing"
    TRUNCATED = "truncated"  # only the beginning of the audio is there
    CHANGED = "changed"  # our file, with other content
    REPLACED = "replaced"  # another file, or not a file


class Difference(NamedTuple):
    """How stored audio differs from the ledger. `ours`: what is there now was written by this ledger."""

    kind: Kind
    ours: bool = True


class Store(ABC):
    """One output folder of a ledger, the folder or the URL `place`.

    Paths are relative to it. Errors of the disk or of the object store are OSErrors.
    """

    place: Path | str
    out_dir: str
    """The output folder as the ledger has it: relative to the ledger's own, so that both can be moved together; or a
    URL."""
    is_remote: ClassVar[bool]
    """Whether each call is a request over the network."""

    def item_path(self, key: str, audio_format: str) -> str:
        """Path of an item's audio."""
        return f"{ITEMS}/{key[:2]}/{key}.{audio_format}"

    @abstractmethod
    def shown(self, path: str) -> str:
        """The path for people: absolute, or a URL."""

    @abstractmethod
    def prepare(self) -> None:
        """Check that audio can be written, before any is bought.

        Raises:
            UsageError: it cannot, or what is there could be overwritten.
            StorageError: it cannot, but that may pass.
        """

    # Downloads that are not verified yet.

    @abstractmethod
    def part(self, path: str) -> Path:
        """Path on disk of the unfinished download for the item path `path`, in a folder that exists."""

    @abstractmethod
    def leftovers(self) -> Iterator[Path]:
        """Files left behind by unfinished downloads."""

    @abstractmethod
    def keep_bad(self, path: str) -> str:
        """Set aside a download that failed its checks, for inspection. Returns its path."""

    @abstractmethod
    def bad(self, key: str) -> list[str]:
        """Downloads of this item that failed their checks."""

    # The audio of items.

    @abstractmethod
    def publish(self, path: str) -> str | None:
        """Store a synced download at the item path `path`, durably.

        Returns the place to which a different file found there was set aside. None if there was none.
        """

    @abstractmethod
    def restore(self, path: str, source: str) -> str | None:
        """Store a copy of `source`, an output as the ledger has it, at the item path `path`. Returns as `publish`."""

    @abstractmethod
    def holds(self, path: str, sha256: str) -> bool:
        """Whether the item path `path` has this content."""

    @abstractmethod
    def keep(self, output: str, key: str, audio_format: str, sha256: str) -> str | None:
        """Make sure that the item's path holds this content, durably, copied from the row's output if needed.

        Returns the path. None if neither has the content.
        """

    # The outputs of rows.

    @abstractmethod
    def ignores_case(self) -> bool:
        """Whether names that differ by case are one."""

    @abstractmethod
    def folder_of(self, output: str) -> str:
        """The folder of an output, as the ledger has it."""

    @abstractmethod
    def names(
        self, folder: str, known: FolderNames | None, *, reserved: Sequence[str], clock: Clock
    ) -> FolderNames | None:
        """The names of files in a folder of outputs, without those that cannot be outputs; see `read_names`.

        In the output folder itself, those have an ending of `reserved` or begin with a dot.
        """

    @abstractmethod
    def expect(self, paths: Sequence[str] | None) -> None:
        """Look at once whether these paths exist, so that `is_there` and `is_free` need no request; None: all."""

    @abstractmethod
    def is_there(self, output: str) -> bool:
        """Whether the output exists."""

    @abstractmethod
    def is_free(self, output: str) -> bool:
        """Whether the output does not exist and can be created."""

    @abstractmethod
    def is_same_entry(self, output: Output, out_dir: str, path: str) -> bool:
        """Whether the row's output and the output `path` in `out_dir` are one file under two names."""

    @abstractmethod
    def conflict(self, output: Output) -> str | None:
        """Why the row's output path cannot be written, usually because a foreign file is there. None if it can."""

    @abstractmethod
    def item_at(self, output: Output) -> tuple[str, str] | None:
        """Key and file extension of the item whose own file is at the row's output, or None."""

    @abstractmethod
    def digest_at(self, output: str) -> str | None:
        """SHA-256 of the file at the output. None if there is no file."""

    @abstractmethod
    def preserve(self, output: Output, owners: Owners, sha256: str | None) -> bool:
        """Make sure that the audio at the row's output, which is about to be replaced, is at the path of an owner.

        Returns False, and changes nothing, if the output no longer has the content `sha256`, by which the owners were
        found: another run has replaced it.
        """

    @abstractmethod
    def link(self, output: Output, *, replace: bool = False) -> str | None:
        """Give the item's audio the name of the row's output. Returns why that failed. None on success.

        Audio of the ledger that is replaced there stays at its item's path, and is restored to it if it is missing.
        `replace`: skip the check for foreign files; the caller has called `preserve`.
        """

    # Reading back, for `verify`.

    @abstractmethod
    def exists(self) -> bool:
        """Whether the output folder itself is there."""

    @abstractmethod
    def item_fault(self, saved: SavedFile) -> Difference | None:
        """How the item's audio differs from the ledger."""

    @abstractmethod
    def output_fault(
        self, output: Output, saved: SavedFile, of_item: Difference | None, ours: Set[str]
    ) -> Difference | None:
        """How the row's output differs from the ledger.

        `of_item` is the fault of the item's own audio; `ours` are the digests of all saved audio.
        """

    @abstractmethod
    def set_aside(self, path: str) -> str:
        """Keep what is at the path under a name after its content, so that it can be replaced. Returns that place."""

    @abstractmethod
    def links(self, outputs: Sequence[str], page: Path, seconds: float | None) -> list[str]:
        """Links from a page to outputs; to an object store with signatures valid for `seconds`, or without any.

        Raises:
            BatcherError: there can be no links.
        """

    # Files beside the audio: results and the mark.

    @abstractmethod
    def identity(self) -> int | str | None:
        """A value that differs in a copy of the folder."""

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """The content of a small file. None if there is none that can be read."""

    @abstractmethod
    def replacing(self, path: str, *, encoding: str | None = None) -> AbstractContextManager[IO[Any]]:
        """A new file, of text if it has an encoding, that replaces the one at the path with the next `flush`."""

    @abstractmethod
    def flush(self) -> None:
        """Store what was written with `replacing`."""

    @abstractmethod
    def on_disk(self, path: str, folder: Path) -> Path:
        """The path of a file on disk: its own, or that of a copy in `folder`."""

    @abstractmethod
    def stamp(self, path: str) -> list[int] | str | None:
        """Fingerprint of a file, which shows that it was changed. None if there is none."""

    @abstractmethod
    def ending_with(self, ending: str) -> list[str]:
        """Names of the files directly in the output folder that have this ending, in order."""
