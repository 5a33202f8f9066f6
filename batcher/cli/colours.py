"""Colours of what is printed for people: green is well, yellow wants a look, red wants a person.

`click.echo` takes them away again where standard output is no terminal.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

import click

from batcher.item import State

GOOD: Final = "green"
LOOK: Final = "yellow"
BAD: Final = "red"

_STATES: Final[dict[str, str]] = {
    State.DONE: GOOD,
    State.IN_DOUBT: LOOK,
    State.REJECTED: BAD,
    State.FAILED: BAD,
    State.GONE: BAD,
}


def in_state(state: str, text: str) -> str:
    """The text in its state's colour; most states have none."""
    return click.style(text, fg=_STATES[state]) if state in _STATES else text


def wanted(environment: Mapping[str, str] = os.environ) -> bool | None:
    """Whether colours are wanted at all, wherever the output goes; None leaves it to whether that is a terminal.

    By https://no-color.org, https://force-color.org and https://bixense.com/clicolors, of which the first wins.
    """
    if environment.get("NO_COLOR") or environment.get("CLICOLOR") == "0":
        return False
    if environment.get("FORCE_COLOR") or environment.get("CLICOLOR_FORCE", "0") not in ("", "0"):
        return True
    return None
