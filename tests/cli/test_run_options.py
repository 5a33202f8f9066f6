"""The settings made from the options that `run`, `plan` and `doctor` share."""

from __future__ import annotations

from pathlib import Path

import pytest

from batcher.cli.commands.plan import plan
from batcher.cli.run_options import run_settings


@pytest.mark.parametrize(
    ("arguments", "variable", "file", "concurrency"),
    [
        (["--sandbox"], None, "", 20),
        ([], None, "", 5),
        (["--sandbox", "--concurrency", "5"], None, "", 5),
        (["--sandbox"], "7", "", 7),
        (["--sandbox"], None, "concurrency = 9", 9),
        ([], None, "sandbox = true", 20),
    ],
)
def test_the_sandbox_runs_at_20_at_once_unless_a_number_is_set(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    variable: str | None,
    file: str,
    concurrency: int,
) -> None:
    """On the command line, in the environment or in `batcher.toml`."""
    monkeypatch.delenv("BATCHER_CONCURRENCY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    if variable is not None:
        monkeypatch.setenv("BATCHER_CONCURRENCY", variable)
    (tmp_path / "batcher.toml").write_text(file)
    manifest = str(tmp_path / "lines.csv")
    with plan.make_context("plan", [manifest, *arguments]) as ctx:
        assert run_settings(ctx, (manifest,)).concurrency == concurrency
