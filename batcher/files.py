"""Opens files as what they must be.

A name in a project folder may belong to anything: a link that leads elsewhere, a pipe that blocks whoever opens it, a
device without an end. So new files are created under a name that nothing has, and only regular files are read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO
from pathlib import Path
from typing import IO, Any, Final

from batcher.errors import UsageError

SHARED_MODE: Final = 0o640
"""Permissions, at most, of files that contain texts or ids: results, reports, logs and marks. The umask may remove
more."""
MAX_CONFIG_BYTES: Final = 1 << 20
"""Maximum size of configuration files: `batcher.toml`, token files, the mark of an output folder."""


def create(path: Path, mode: int = 0o666) -> int:
    """Create an empty file and return its descriptor. A file or link that has its name is removed, not followed.

    Raises:
        OSError: it cannot be created; a folder is in the way, for example.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        if not path.is_dir():
            raise
        raise OSError(errno.EISDIR, f"{path.name} is a folder", str(path)) from error
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)


@contextmanager
def replacing(path: Path, *, mode: int = SHARED_MODE, encoding: str | None = None) -> Iterator[IO[Any]]:
    """A new file, of text if it has an encoding. It is synced and replaces `path` at the end, if no error is raised.

    Raises:
        OSError: it cannot be written, or there is a device, such as /dev/null; the old file stays.
    """
    if os.path.lexists(path) and stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFCHR, stat.S_IFBLK):
        raise OSError(errno.EINVAL, "it is a device, which cannot be replaced", str(path))
    draft = path.with_name(f".{path.name}.part")
    descriptor = create(draft, mode)
    kind, newline = ("w", "") if encoding else ("wb", None)
    try:
        with os.fdopen(descriptor, kind, encoding=encoding, newline=newline) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def open_regular(path: Path, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Open a regular file, without ever blocking, and return its descriptor.

    Raises:
        OSError: it does not exist, cannot be opened, or is not a regular file.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    if not stat.S_ISREG(kind := os.fstat(descriptor).st_mode):
        os.close(descriptor)
        if stat.S_ISDIR(kind):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return descriptor


def open_own(path: Path) -> int:
    """Open a file for the user alone, created if it does not exist, and return its descriptor.

    Raises:
        OSError: it cannot be opened, is not a regular file, or has another name: writing would change that file too.
    """
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    if os.fstat(descriptor).st_nlink > 1:
        os.close(descriptor)
        raise OSError(errno.EMLINK, "it is also linked under another name", str(path))
    return descriptor


def write(descriptor: int, data: bytes, at: int) -> None:
    """Write all of `data` at this offset; a nearly full disk may write a part of it and report success.

    Raises:
        OSError: it does not fit.
    """
    done = 0
    while done < len(data):
        done += os.pwrite(descriptor, data[done:], at + done)


def reading(path: Path) -> BufferedReader:
    """A regular file, open for reading.

    Raises:
        OSError: see `open_regular`.
    """
    return BufferedReader(FileIO(open_regular(path), "rb"))


def read_config(path: Path) -> bytes:
    """The content of a configuration file.

    Raises:
        OSError: it cannot be read, is not a regular file, or is larger than `MAX_CONFIG_BYTES`.
    """
    with reading(path) as file:
        content = file.read(MAX_CONFIG_BYTES + 1)
    if len(content) > MAX_CONFIG_BYTES:
        raise OSError(errno.EFBIG, f"it has more than {MAX_CONFIG_BYTES:,} bytes", str(path))
    return content


def is_url(place: str) -> bool:
    """Whether a place for files is in an object store, and not on disk."""
    return "://" in place


def resolved(path: Path) -> Path:
    """The absolute path without symbolic links.

    Raises:
        UsageError: a link leads back to itself, or no file can have that name.
    """
    try:
        return path.resolve()
    except (RuntimeError, OSError, ValueError) as error:
        why = "its symbolic links form a loop" if isinstance(error, RuntimeError) else getattr(error, "strerror", error)
        raise UsageError(f"cannot use {str(path)!r}: {why}", "Choose another path, or fix the link.") from None


def leads_out(folder: Path, path: Path) -> bool:
    """Whether the file `path`, which lies in `folder` by its name, is really outside because of a symbolic link."""
    real = os.path.realpath(folder)
    return os.path.commonpath((real, os.path.realpath(path.parent))) != real
