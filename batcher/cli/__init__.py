"""The command line: arguments, environment and `batcher.toml` become settings; errors become exit codes."""

from __future__ import annotations

import sys

from batcher.cli.static_help import SAID_AT_ONCE

__all__ = ["main"]


def main() -> None:
    """The `batcher` command."""
    words = SAID_AT_ONCE.get(tuple(sys.argv[1:]))
    if words is None or not _is_said(words):
        from batcher.cli.app import run

        run()


def _is_said(words: str) -> bool:
    """Whether standard output took the words; where it did not, the whole program knows what to do about it."""
    try:
        sys.stdout.write(words + "\n")
        sys.stdout.flush()
    except (OSError, AttributeError):
        return False
    return True
