"""The manual lists every limit of the network."""

from __future__ import annotations

from dataclasses import fields

from batcher.cli.commands.help import topic_text
from batcher.provider import limits


def test_the_manual_has_each_limit() -> None:
    """By its name, and no other."""
    text = topic_text("security").split("## Network")[1].split("\n## ")[0]
    names = {name for name in vars(limits) if name.isupper()}
    names |= {field.name for field in fields(limits.DownloadLimits)}
    listed = {
        name.removeprefix("DownloadLimits.")
        for line in text.splitlines()
        if line.startswith("| `")
        for name in line.split("|")[1].replace("`", "").replace(",", " ").split()
    }
    assert listed == names
