"""What a person sees in a terminal of any width: whole words, and commands that can be copied."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest

from batcher.formatting import columns_of

if TYPE_CHECKING:
    from tests.conftest import Project


def _shown(project: Project, columns: int, *arguments: object) -> str:
    """What the command writes to a terminal with this many columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "batcher", *map(str, arguments), "--api-url", project.provider.url]
    process = subprocess.Popen(
        command, cwd=project.folder, env=project.environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # raised by Linux at the end of a terminal
        while chunk := os.read(ours, 4096):
            said += chunk
    os.close(ours)
    process.wait(30)
    return said.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [80, *(pytest.param(width, marks=pytest.mark.slow) for width in (60, 120))])
def test_lines_wrap_between_words(project: Project, columns: int) -> None:
    """In `plan`, `run`, `doctor` and `status`; only paths and commands may be longer. The bar fits its line, too."""
    manifest = project.manifest([row | {"mood": "x"} for row in project.rows(3)])
    for arguments in (("plan", manifest), ("run", manifest), ("doctor", manifest), ("run", "absent.csv")):
        for line in re.split(r"[\n\r]", _shown(project, columns, *arguments)):
            words = line.split()
            is_command = line.startswith("  batcher ")
            assert columns_of(line) <= columns or is_command or len(words) == 1, line


def test_the_bar_stays_with_the_final_counts(project: Project) -> None:
    shown = _shown(project, 120, "run", project.manifest(3))
    last = re.split(r"[\n\r]", shown.partition("3 of 3 items done")[0])
    assert [line for line in last if "3 of 3 done" in line and "999,997 credits left" in line and "100%" in line]
    assert " open" not in last[-2]
