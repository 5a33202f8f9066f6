"""The owner's lock: at most one run works on a ledger, whichever path names it.

The kernel releases it when the process ends, so a kill leaves nothing to clean up.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from batcher.errors import LockedError, StorageError

_POLL_SECONDS: Final = 0.05
"""Time between two attempts to take the lock while waiting for it."""


@contextmanager
def owner_lock(ledger: Path, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock of the ledger at `ledger`, waiting for it up to `wait_seconds`.

    Raises:
        LockedError: another process, named in the message, holds it.
    """
    real = ledger.resolve()
    path = real.with_name(real.name + ".lock")
    try:
        real.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _acquire(descriptor, wait_seconds)
        except BaseException:
            os.close(descriptor)
            raise
    except BlockingIOError:
        raise LockedError(
            f"another run holds the ledger {ledger}{_holder(path)}", "Pass --wait-lock 5m to wait for it."
        ) from None
    except OSError as error:
        raise StorageError(f"cannot lock {ledger}: {error.strerror}", "Free some space or fix the folder.") from error
    try:
        _write_holder(path)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, wait_seconds: float) -> None:
    """Lock the open file, waiting up to `wait_seconds`.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    give_up_at = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= give_up_at:
                raise
            time.sleep(_POLL_SECONDS)
        else:
            return


def _write_holder(path: Path) -> None:
    """Write the lock's holder into its file, for messages of other processes. A full disk is not an error."""
    with suppress(OSError):
        path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started_at": time.time()}))


def _holder(path: Path) -> str:
    try:
        who = json.loads(path.read_text())
        since = datetime.fromtimestamp(who["started_at"]).astimezone().isoformat(" ", "seconds")
        return f" (pid {who['pid']} on {who['host']}, since {since})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
