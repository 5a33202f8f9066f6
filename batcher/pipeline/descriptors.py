"""How many requests can be in flight with the files that the process may have open.

A connection is an open file, too. Without one to spare, an answer to a create request could not be stored.
"""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from batcher.errors import TroubleError
from batcher.formatting import counted

SPARE_DESCRIPTORS: Final = 16
"""Descriptors that requests leave free: for the ledger, the results, logs and name lookups."""
_MIN_SPARE: Final = 6
"""Where so few are permitted that one request of each kind leaves fewer than the above, it must leave these."""
_OPEN: Final = Path("/proc/self/fd")
_USUALLY_OPEN: Final = 24  # where the above does not exist


class InFlight(NamedTuple):
    """Maximum numbers of requests at once."""

    creates: int
    polls: int
    downloads: int

    def descriptors(self, ends: int) -> int:
        """The descriptors that they take, with `ends` of each connection in this process; a download writes a file."""
        return ends * sum(self) + self.downloads


def fit(wanted: InFlight, say: Callable[[str], None], *, ends: int = 1, others: int = 0) -> InFlight:
    """The numbers of requests that the process can have open, at most those wanted; raises its own limit first.

    `ends` is the number of ends of each connection in this process: 2 if it is the server, too. `others` are the
    descriptors that an object store takes.

    Raises:
        TroubleError: not even one of each kind fits.
    """
    used = others + (len(list(_OPEN.iterdir())) if _OPEN.is_dir() else _USUALLY_OPEN)
    limit = _raised(used + SPARE_DESCRIPTORS + wanted.descriptors(ends))
    fitting = fitted(wanted, limit - used, ends)
    if fitting is None:
        message = f"this process may open only {limit} files, of which {used} are in use: too few for any request"
        raise TroubleError(message, "Raise the limit, as with `ulimit -n 1024`, and run it again.")
    if fitting != wanted:
        kinds = zip(("create request", "poll", "download"), fitting, strict=True)
        numbers = ", ".join(counted(number, kind) for kind, number in kinds)
        say(f"this process may open only {limit} files: at most {numbers} at once; `ulimit -n 1024` raises the limit")
    return fitting


def _raised(needed: int) -> int:
    """Raise the soft limit of open files to `needed`, as far as is permitted. Returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return max(soft, needed)
    possible = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if possible > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    return possible


def fitted(wanted: InFlight, free: int, ends: int) -> InFlight | None:
    """The requests that `free` descriptors are enough for; None if they are not even for one of each kind."""
    least = InFlight(1, 1, 1)
    if free < least.descriptors(ends) + _MIN_SPARE:
        return None
    rest = max(0, free - SPARE_DESCRIPTORS - least.descriptors(ends))
    downloads = min(wanted.downloads, 1 + rest // 4 // (ends + 1))
    polls = min(wanted.polls, 1 + rest // 4 // ends)
    creates = min(wanted.creates, 1 + rest // 2 // ends)
    found = InFlight(creates, polls, downloads)
    return wanted if wanted.descriptors(ends) + SPARE_DESCRIPTORS <= free else found


def preload() -> None:
    """Import what a run needs at its end: importing opens files, and there may be none left."""
    import tinytag  # noqa: F401

    import batcher.reports.metrics  # noqa: F401
