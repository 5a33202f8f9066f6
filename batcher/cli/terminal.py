"""Prints lines for people: on a terminal they are wrapped between words."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import click

from batcher.formatting import wrapped


def show(text: str, *, err: bool = False, newline: bool = True, hanging: int | None = None) -> None:
    """Print the text on standard output, or on standard error, wrapped if that is a terminal.

    `hanging` is the indentation of further lines, by default that of the first.
    """
    lines = wrapped(text, _width(sys.stderr if err else sys.stdout), hanging=hanging)
    click.echo(lines, err=err, nl=newline)


def _width(stream: object) -> int | None:
    """Columns of the terminal that the stream is; None if it is none, or if that is unknown."""
    with suppress(OSError, ValueError, AttributeError):
        return os.get_terminal_size(stream.fileno()).columns or None  # type: ignore[attr-defined]
    return None
