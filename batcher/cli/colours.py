"""Colours of printed text: green for good, yellow for warnings, red for errors.

`click.echo` removes them when standard output is not a terminal.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

import click

from batcher.item import State

GOOD: Final = "green"
WARNING: Final = "yellow"
ERROR: Final = "red"

_STATES: Final[dict[str, str]] = {
    State.DONE: GOOD,
    State.IN_DOUBT: WARNING,
    State.REJECTED: ERROR,
    State.FAILED: ERROR,
    State.GONE: ERROR,
}


def in_state(state: str, text: str) -> str:
    """The text in the colour of the state; most states have none."""
    return click.style(text, fg=_STATES[state]) if state in _STATES else text


def forced(environment: Mapping[str, str] = os.environ) -> bool | None:
    """Whether the environment turns colours on or off; None to use them on terminals only.

    Follows https://no-color.org, https://force-color.org and https://bixense.com/clicolors; the first wins.
    """
    if environment.get("NO_COLOR") or environment.get("CLICOLOR") == "0":
        return False
    if environment.get("FORCE_COLOR") or environment.get("CLICOLOR_FORCE", "0") not in ("", "0"):
        return True
    return None
