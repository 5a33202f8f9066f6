"""The manual lists every limit of the network and of manifests."""

from __future__ import annotations

from dataclasses import fields

import pytest

from batcher.cli.commands.help import topic_text
from batcher.manifest import limits as of_manifests
from batcher.provider import limits


@pytest.mark.parametrize(
    ("section", "names"),
    [
        ("Network", {*vars(limits), *(field.name for field in fields(limits.DownloadLimits))}),
        ("Manifests", {*vars(of_manifests)}),
    ],
)
def test_the_manual_has_each_limit(section: str, names: set[str]) -> None:
    """By its name, and no other."""
    text = topic_text("security").split(f"## {section}\n")[1].split("\n## ")[0]
    listed = {
        name.removeprefix("DownloadLimits.")
        for line in text.splitlines()
        if line.startswith("| `")
        for name in line.split("|")[1].replace("`", "").replace(",", " ").split()
    }
    own = {field.name for field in fields(limits.DownloadLimits)}
    assert listed == {name for name in names if name.isupper() or name in own}
