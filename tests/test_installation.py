"""Hints to install something name a command that changes this installation, however batcher was installed."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from batcher.installation import Installation, this_installation

PYTHON = "/opt/speech tools/bin/python"
PIP = f"'{PYTHON}' -m pip install"


@pytest.mark.parametrize(
    ("marker", "has_pip", "install", "upgrade", "repair"),
    [
        (None, True, f"{PIP} 'tts-batcher[xlsx]'", f"{PIP} -U tts-batcher", f"{PIP} --force-reinstall xlsxwriter"),
        (
            None,
            False,
            f"uv pip install --python '{PYTHON}' 'tts-batcher[xlsx]'",
            f"uv pip install --python '{PYTHON}' -U tts-batcher",
            f"uv pip install --python '{PYTHON}' --reinstall xlsxwriter",
        ),
        (
            "pipx_metadata.json",
            True,
            "pipx install --force 'tts-batcher[xlsx]'",
            "pipx upgrade tts-batcher",
            "pipx install --force 'tts-batcher[xlsx]'",
        ),
        (
            "uv-receipt.toml",
            False,
            "uv tool install 'tts-batcher[xlsx]'",
            "uv tool upgrade tts-batcher",
            "uv tool install --reinstall 'tts-batcher[xlsx]'",
        ),
    ],
    ids=["pip", "no pip", "pipx", "uv tool"],
)
def test_each_kind_of_installation_has_its_commands(
    tmp_path: Path, marker: str | None, has_pip: bool, install: str, upgrade: str, repair: str
) -> None:
    if marker is not None:
        (tmp_path / marker).touch()
    here = Installation(python=PYTHON, prefix=tmp_path, has_pip=has_pip)
    assert (here.install("xlsx"), here.upgrade()) == (install, upgrade)
    assert here.repair("xlsxwriter", extra="xlsx") == repair


def test_an_installation_from_a_folder_is_not_replaced_by_one_from_an_index(tmp_path: Path) -> None:
    url = "file:///srv/batcher"
    here = Installation(python="python", prefix=tmp_path, url=url, editable=True)
    assert here.upgrade() == f"python -m pip install -U -e {url}"
    assert here.install("xlsx") == "python -m pip install 'tts-batcher[xlsx]'"
    (tmp_path / "uv-receipt.toml").touch()
    assert here.install("xlsx") == f"uv tool install 'tts-batcher[xlsx] @ {url}'"


def test_the_command_for_this_installation_names_its_interpreter() -> None:
    """And pip understands it."""
    command = shlex.split(this_installation().install("xlsx"))
    assert command[0] == sys.executable
    asked = subprocess.run([*command, "--dry-run", "--no-index"], capture_output=True, encoding="utf-8", check=False)
    assert asked.returncode == 0, asked
