"""Files that other programs keep beside a manifest, and that a pattern such as *.xlsx includes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from batcher.errors import UsageError

_KINDS: Final = {
    "~$": "the lock file of a document that is open in Microsoft Office",
    ".~lock.": "the lock file of a document that is open in LibreOffice",
    "._": "a side file of macOS, without the content of the file",
}
"""What they are, by the beginning of their names."""


def without_side_files(manifests: tuple[str, ...], say: Callable[[str], object]) -> list[str]:
    """The manifests without side files of other programs, each of which is passed to `say` in a sentence.

    Raises:
        UsageError: there is nothing else.
    """
    known = _KINDS.items()
    kinds = {name: kind for name in manifests for start, kind in known if Path(name).name.startswith(start)}
    if kinds and len(kinds) == len(manifests):
        name, kind = next(iter(kinds.items()))
        raise UsageError(f"{name} is {kind}", "Name the document itself.")
    for name, kind in kinds.items():
        say(f"skipped {name}: it is {kind}")
    return [name for name in manifests if name not in kinds]
