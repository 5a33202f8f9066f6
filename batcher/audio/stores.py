"""The output folders of one ledger: those of its batches, and the one that new audio goes to."""

from __future__ import annotations

import os
from pathlib import Path

from batcher import files
from batcher.audio.bucket import Bucket
from batcher.audio.fingerprints import AddedNames
from batcher.audio.folder import Folder
from batcher.audio.store import Store


class Stores:
    """Opens output folders by the name that the ledger has for them. `home` is the ledger's folder.

    `added` notes the names of files that linking adds to folders.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._opened: dict[str, Store] = {}
        self.added = AddedNames()

    def at(self, out_dir: str) -> Store:
        """The output folder: a path relative to the ledger's folder, or a URL."""
        if out_dir not in self._opened:
            self._opened[out_dir] = self._open(out_dir)
        return self._opened[out_dir]

    def of(self, place: Path | str) -> Store:
        """The output folder at a path as the user has named it, or at a URL."""
        return self.at(place if isinstance(place, str) else os.path.relpath(place, self._home))

    def file(self, name: str) -> tuple[Store, str]:
        """The output folder that contains a file, named by a path or a URL of the user, and its name there."""
        if files.is_url(name):
            folder, _, name = name.rpartition("/")
            return self.at(folder), name
        path = Path(name).absolute()
        return self.of(path.parent), path.name

    def _open(self, out_dir: str) -> Store:
        if files.is_url(out_dir):
            return Bucket(self._home, out_dir)
        return Folder(self._home, Path(os.path.normpath(self._home / out_dir)), self.added)
