"""What a hostile file system puts in the way, and other accounts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

STRANGER: Final = 54321
"""Number of an account that owns nothing."""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another account")


@contextmanager
def as_account(number: int) -> Iterator[None]:
    """Act as another account, in this process."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(number)
    os.seteuid(number)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@contextmanager
def public_folder() -> Iterator[Path]:
    """A new folder that every account can enter, which pytest's cannot."""
    with tempfile.TemporaryDirectory(prefix="batcher-public-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
