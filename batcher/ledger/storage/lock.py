"""The owner's lock: at most one run works on a ledger, whichever path names it.

The kernel releases it when the process ends, so a kill leaves nothing to clean up.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from batcher import files
from batcher.address import Address, Server
from batcher.errors import PERMANENT, LedgerError, LockedError, StorageError


@contextmanager
def owner_lock(ledger: Address, *, hint: str = "Wait until it has ended.") -> Iterator[None]:
    """Hold the lock of the ledger. On a server, the connection holds it instead: see `postgres`.

    `hint` is what to do if another process holds it.

    Raises:
        LockedError: another process, named in the message, holds it.
        LedgerError: this account cannot use the lock's file.
        StorageError: the disk is full, or does not support locks.
    """
    if isinstance(ledger, Server):
        yield
        return
    real = ledger.resolve()
    path = real.with_name(real.name + ".lock")
    lock = FileLock(path, timeout=0, fallback_to_soft=False, mode=0o600)
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        os.close(files.open_own(path))
        lock.acquire()
    except Timeout:
        raise LockedError(f"another run holds the ledger {ledger}{_holder(path)}", hint) from None
    except OSError as error:
        message = f"cannot lock {ledger}: {error.filename or path}: {error.strerror}"
        if error.errno not in PERMANENT:
            raise StorageError(message, "Free some space or fix the folder.") from error
        remedy = "Run batcher as the account that the ledger belongs to, or choose another with --ledger."
        if error.errno == errno.EMLINK:
            remedy = "A copy made with hard links is the same ledger: delete the copy, then make it with cp -a."
        raise LedgerError(message, remedy) from error
    try:
        _write_holder(path)
        yield
    finally:
        lock.release()


def _write_holder(path: Path) -> None:
    """Write the lock's holder into its file, for messages of other processes. A full disk is not an error."""
    with suppress(OSError):
        path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started_at": time.time()}))


def _holder(path: Path) -> str:
    try:
        who = json.loads(files.read_config(path))
        since = datetime.fromtimestamp(who["started_at"]).astimezone().isoformat(" ", "seconds")
        return f" (pid {who['pid']} on {who['host']}, since {since})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
