"""Who decides: the name that a decision carries in an item's story."""

from __future__ import annotations

import getpass
import os


def name() -> str:
    """The user that this process belongs to, by its number where nobody has named it, as in containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # before Python 3.13, and since
        return f"uid {os.getuid()}"
