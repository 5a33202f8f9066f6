"""Puts files at their paths on disk: each is there whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Final

from batcher import files
from batcher.audio.content import digest

_NO_LINKS: Final = (errno.EPERM, errno.ENOSYS, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP)

_TRIES: Final = 10
"""Runs that link the same row at the same time are in each other's way at most this often."""


def place(source: Path, target: Path) -> None:
    """Link or copy `source` to `target` atomically, replacing `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = draft_of(target)
    for left in reversed(range(_TRIES)):
        try:
            _link(source, draft)
            draft.replace(target)
            draft.unlink(missing_ok=True)  # renaming does nothing if another run has just linked the same file
        except (FileExistsError, FileNotFoundError):  # another run has created or moved its own draft
            if left == 0 or not source.exists():
                raise
        else:
            return


def draft_of(target: Path) -> Path:
    """The path under which a file is written that then replaces `target`."""
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


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
