"""The manifests of a ledger are found again after the project folder was moved or copied."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from batcher.ledger.ledger import open_readonly
from batcher.ledger.queries.batches import current_batches
from batcher.ledger.queries.manifest_paths import STDIN, batches_of, source_name, source_of
from tests.conftest import Project


def _sources(ledger: Path) -> list[str]:
    with open_readonly(ledger) as conn:
        return [source_of(conn, batch)[0] for batch in current_batches(conn)]


def test_sources_in_the_ledgers_folder_are_stored_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert source_name(tmp_path / "lines.csv", tmp_path) == "lines.csv"
    assert source_name(tmp_path / "link" / "sub" / "lines.csv", tmp_path) == "sub/lines.csv"
    assert source_name(tmp_path.parent / "lines.csv", tmp_path) == str(tmp_path.parent / "lines.csv")
    assert source_name(None, tmp_path) == STDIN


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("stored", ["relative", "absolute"])
def test_a_report_finds_its_manifest_in_the_folder_where_it_is_now(project: Project, copied: bool, stored: str) -> None:
    """`absolute`: as versions before 0.2 stored it."""
    manifest = project.manifest([row | {"note": "old"} for row in project.rows(2)])
    assert project.run(manifest).exit_code == 0
    if stored == "absolute":
        with closing(sqlite3.connect(project.ledger)) as connection, connection:
            connection.execute("UPDATE batches SET source = ?", (str(manifest),))
    moved = project.folder.parent / "moved"
    if copied:
        shutil.copytree(project.folder, moved)
        manifest.write_text("text\nAnother.\n")
    else:
        project.folder.rename(moved)
        project.folder.mkdir()
    for command in ("report", "status"):
        ended = project.batcher(command, moved / "lines.csv", cwd=moved)
        assert (ended.exit_code, "no batch" in ended.err) == (0, False)
    table = project.batcher("report", "lines.csv", "--format", "csv", cwd=moved)
    assert (table.exit_code, table.err) == (0, "")
    assert _sources(moved / "batcher.db") == [str(moved / "lines.csv")]


def test_a_manifest_elsewhere_keeps_its_path(project: Project, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.csv"
    project.manifest(1).rename(elsewhere)
    assert project.run(elsewhere, "--ledger", project.ledger, "--out-dir", project.audio).exit_code == 0
    assert _sources(project.ledger) == [str(elsewhere)]
    with open_readonly(project.ledger) as conn:
        assert batches_of(conn, elsewhere) == ["elsewhere"]
        assert batches_of(conn, project.folder / "elsewhere.csv") == []
