"""What a person sees in a terminal of any width: whole words, and commands that can be copied."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from batcher.formatting import columns_of
from tests.support.terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Project


def _shown(project: Project, columns: int, *arguments: str | Path) -> str:
    """What the command writes to a terminal with this many columns."""
    terminal = Terminal(project, *arguments, "--api-url", project.provider.url, columns=columns)
    terminal.end()
    return terminal.said


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
