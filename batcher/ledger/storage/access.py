"""Whether this account can open a ledger, and how it does so without harm to the account that the ledger belongs to.

SQLite creates files beside a ledger in WAL mode even to read it, and an account that cannot write the ledger cannot
remove them. They would lock its owner out, so such an account reads without creating any.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from batcher.errors import LedgerError, TroubleError
from batcher.ledger.storage.open_files import beginning

CHOOSE_ANOTHER: Final = "Choose another with --ledger."
_MAGIC: Final = b"SQLite format 3\0"
_SIDE_FILES: Final = ("-wal", "-shm", "-journal")


def check_files(path: Path, *, readonly: bool) -> None:
    """Check the ledger's files before SQLite opens them; for writing, it would turn an empty file into a database.

    Raises:
        LedgerError: there is no ledger, or this account cannot use its files.
    """
    try:
        header = beginning(path, len(_MAGIC))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise LedgerError(
            f"no ledger at {path}", "`batcher run MANIFEST` creates one; --ledger chooses another."
        ) from None
    except OSError as error:
        hint = _as_owner(path) if error.errno in (errno.EACCES, errno.EPERM) else CHOOSE_ANOTHER
        raise LedgerError(f"cannot read the ledger {path}: {error.strerror}", hint) from None
    if header not in (None, _MAGIC):
        raise LedgerError(f"{path} is not a batcher ledger", CHOOSE_ANOTHER)
    if not readonly and not os.access(path, os.W_OK, effective_ids=True):
        raise LedgerError(f"cannot write the ledger {path}: this account may only read it", _as_owner(path))
    for side in side_files(path):
        _check_side(side, readonly=readonly)


def side_files(path: Path) -> list[Path]:
    """The journals that SQLite would use with a database at `path`, including links and other special files."""
    return [side for ending in _SIDE_FILES if os.path.lexists(side := path.with_name(f"{path.name}{ending}"))]


def _check_side(side: Path, *, readonly: bool) -> None:
    try:
        found = side.lstat()
    except FileNotFoundError:  # whoever wrote it has closed the ledger meanwhile
        return
    if not stat.S_ISREG(found.st_mode):
        raise LedgerError(f"{side} is not a regular file", "It is not the ledger's: move it away.")
    if not readonly and not os.access(side, os.R_OK | os.W_OK, effective_ids=True):
        hint = f"Change its owner: `sudo chown $(id -u) {side}`."
        if side.name.endswith("-shm") or not found.st_size:
            hint = f"A program of that account read the ledger. Once it has ended, remove the file: `rm {side}`"
        raise LedgerError(f"cannot write {side}: it belongs to {_owner(side)}", hint)


def uri(path: Path, *, readonly: bool) -> str:
    """How SQLite is to open the ledger, whose files have been checked.

    An account that the ledger does not belong to creates no file: if there are none beside the ledger, nobody is
    writing, and it is read as it is.

    Raises:
        TroubleError: it cannot be read so now.
    """
    base = path.absolute().as_uri()
    if not readonly or not _is_foreign(path):
        return f"{base}?mode={'ro' if readonly else 'rw'}"
    journal, index = (path.with_name(f"{path.name}{ending}") for ending in ("-wal", "-shm"))
    if not journal.exists() or not journal.stat().st_size:
        return f"{base}?mode=ro&immutable=1"
    if not (_is_readable(index) and _is_readable(journal)):
        message = f"the ledger {path} has changes that only {_owner(path)} can read"
        raise TroubleError(message, "Try again after the next run, or run this as that account.")
    return f"{base}?mode=ro"


def _is_foreign(path: Path) -> bool:
    """Whether files that this account creates beside the ledger would belong to another account than the ledger."""
    return os.geteuid() not in (0, path.stat().st_uid)  # of root, SQLite gives them to the ledger's account


def _is_readable(path: Path) -> bool:
    return os.access(path, os.R_OK, effective_ids=True)


def _owner(path: Path) -> str:
    """The account that a file belongs to, in words."""
    try:
        return f"the account {path.owner()}"
    except KeyError:
        return f"the account number {path.stat().st_uid}"
    except OSError:
        return "another account"


def _as_owner(path: Path) -> str:
    return f"Run this as {_owner(path)}, or choose another with --ledger."
