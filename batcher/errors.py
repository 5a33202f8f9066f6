"""The errors that reach a user.

A class says what the caller must do, its message what happened and where, its hint the way out::

    BatcherError
    ├── UsageError           mend the command, the configuration or the manifest; nothing was created
    │   ├── ManifestError    mend the rows that `faults` lists
    │   └── LedgerError      this ledger cannot be used as asked
    ├── LockedError          another run holds the ledger: wait for it
    ├── CredentialsError     get another token, or the right account's
    └── TroubleError         run again later: the network, the provider's edge or the disk
        └── StorageError     the ledger's disk takes nothing more

Anything else that escapes is a bug.
"""

from __future__ import annotations


class BatcherError(Exception):
    """Something went wrong that a user can do something about.

    `message` is one line that says what happened and where; `hint` (may be empty) what to do next.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def one_line(self) -> str:
        """Message and hint in one line."""
        return f"{self.message}. {self.hint}" if self.hint else self.message

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(BatcherError):
    """The command line, the configuration or the input cannot be used; nothing was created."""


class ManifestError(UsageError):
    """A manifest has faults; `faults` are the lines to show, one per cause."""

    def __init__(self, message: str, faults: list[str], hint: str = "") -> None:
        super().__init__(message, hint)
        self.faults = faults


class LedgerError(UsageError):
    """The ledger is missing, too new, damaged, or belongs to something else."""


class LockedError(BatcherError):
    """Another run holds the ledger."""


class CredentialsError(BatcherError):
    """The token is missing or refused, or belongs to another account than the tasks."""


class TroubleError(BatcherError):
    """Trouble that may pass by itself."""


class StorageError(TroubleError):
    """The disk does not take what must be durable before anything else may happen."""
