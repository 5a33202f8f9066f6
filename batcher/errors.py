"""The errors that are shown to users.

The class determines what to do, the message is what happened and where, the hint is the next step::

    BatcherError
    ├── UsageError           fix the command, the configuration or the manifest; nothing was created
    │   ├── ManifestError    fix the rows in `faults`
    │   │   └── DoubtError   the same, or accept them as they are
    │   └── LedgerError      this ledger cannot be used for this command
    ├── LockedError          another run holds the ledger; wait for it
    ├── CredentialsError     use another token, or the token of the right account
    └── TroubleError         run again later: network, provider or disk
        └── StorageError     the ledger's disk accepts no more writes

A `DamagedError` is both a LedgerError and a StorageError. Any other exception that escapes is a bug.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

PERMANENT: Final = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.EMLINK),
    *(errno.ENAMETOOLONG, errno.ENOENT, errno.EEXIST, errno.EFBIG),
)
"""Errors of the file system that stay until somebody changes a path or its permissions; others may pass."""


class BatcherError(Exception):
    """An error that the user can do something about.

    `message` is one line: what happened and where. `hint` is what to do next; it may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def one_line(self) -> str:
        """Message and hint on one line."""
        return f"{self.message}. {self.hint}" if self.hint else self.message

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(BatcherError):
    """The command line, the configuration or the input is invalid; nothing was created."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Another command line that is probably meant: when it is, and the options that it has instead of its own."""

    when: str
    options: Mapping[str, Sequence[str]]


class ManifestError(UsageError):
    """A manifest has faults. `faults` are the lines to print, one for each cause."""

    def __init__(
        self, message: str, faults: list[str], hint: str = "", *, suggestion: Suggestion | None = None
    ) -> None:
        super().__init__(message, hint)
        self.faults = faults
        self.suggestion = suggestion

    def __str__(self) -> str:
        lines = [self.message, *self.faults, *filter(None, [self.hint])]
        return "\n  ".join(dict.fromkeys(lines))


class DoubtError(ManifestError):
    """Texts of a manifest have contents of these `types` that are hardly meant to be spoken."""

    def __init__(self, message: str, faults: list[str], hint: str, types: frozenset[str]) -> None:
        super().__init__(message, faults, hint)
        self.types = types


class LedgerError(UsageError):
    """The ledger is missing, too new, damaged or the wrong one."""


class LockedError(BatcherError):
    """Another run holds the ledger."""


class TerminatedError(SystemExit):
    """SIGTERM or SIGHUP arrived before anything had begun that could drain.

    An event loop ends at once for a SystemExit, as for KeyboardInterrupt. The latter may make Python end by SIGINT even
    though it was caught: if it was raised in code that is a string, as of data classes.
    """


class StoppedError(BatcherError):
    """A request to stop ended a run before it began, or the reading of a manifest."""

    def __init__(self) -> None:
        super().__init__("stopped by a signal; run it again to continue")


class CredentialsError(BatcherError):
    """The token is missing or rejected, or belongs to a different account than the tasks."""


class TroubleError(BatcherError):
    """A problem that may be temporary."""


class StorageError(TroubleError):
    """A write that must be durable before the next step failed."""


class DamagedError(LedgerError, StorageError):
    """A statement failed because the ledger is damaged or not what it was.

    Before anything is created, it is a ledger that cannot be used; in mid-run, trouble like that of a disk.
    """


def root_cause(error: BaseException) -> BaseException:
    """The most important error in a group raised by task groups: bugs come before errors that a user can fix."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [root_cause(one) for one in error.exceptions]
    return next((leaf for leaf in leaves if not isinstance(leaf, BatcherError)), leaves[0])


def of_file_system(error: OSError) -> BatcherError | None:
    """What a user can do about an error of the operating system. None if it concerns no file, which is a bug."""
    where = error.filename if isinstance(error.filename, str) else None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = where or "a file or standard output"
        return StorageError(f"cannot write {where}: {error.strerror}", "Free some space, then run it again.")
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return TroubleError(f"cannot open {where or 'a file'}: {error.strerror}", "Raise the limit: `ulimit -n 1024`.")
    if where is None:
        return None
    if error.errno in PERMANENT:
        hint = "Check the path, its permissions, and which account runs batcher."
        return UsageError(f"cannot use {where}: {error.strerror}", hint)
    return TroubleError(f"cannot use {where}: {error.strerror}", "Run it again later.")


@contextmanager
def own_errors() -> Iterator[None]:
    """Raise errors of the file system as errors that say what to do about them."""
    try:
        yield
    except OSError as error:
        if (own := of_file_system(error)) is None:
            raise
        raise own from error
