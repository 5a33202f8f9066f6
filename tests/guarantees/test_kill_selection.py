"""A run of selected rows is killed and continued, with and without the selection: nothing is bought twice."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.guarantees.test_kill_matrix import CONCURRENCY, RECORD, assert_recovers, unrecorded
from tests.support.fake_tts import FakeTTS
from tests.support.processes import killed

if TYPE_CHECKING:
    from tests.conftest import Project

ROWS: Final = 8
SELECTED: Final = 4
SELECTIONS: Final = (("--only", "r2,r4", "--only", "r6,r7"), ("--sample", str(SELECTED)))
POINTS: Final = {
    "chosen-not-committed": "after batcher.pipeline.selection:Selection.choose 1",
    "claim-committed": "after batcher.pipeline.submitter:Submitter._claim 1",
    "answer-not-committed": "after batcher.ledger.ledger:record_answer 2",
    "answer-committed": f"after {RECORD} {SELECTED}",
    "file-in-place": "after batcher.audio.folder:Folder.publish 2",
    "end-not-committed": "after batcher.ledger.lifecycle.runs:end_run 1",
}
CORE: Final = {("answer-not-committed", 0), ("answer-committed", 1), ("claim-committed", 1)}


def cases() -> list[Any]:
    return [
        pytest.param(
            point,
            options,
            id=f"{name}{options[0]}",
            marks=[] if (name, index) in CORE else [pytest.mark.slow],
        )
        for name, point in POINTS.items()
        for index, options in enumerate(SELECTIONS)
    ]


@pytest.mark.parametrize(("point", "options"), cases())
@pytest.mark.slow
def test_a_killed_run_of_selected_rows_continues_with_them_and_then_with_all(
    project: Project, provider: FakeTTS, point: str, options: tuple[str, ...]
) -> None:
    """The second run buys no other rows, the third the rest, and none buys a row twice."""
    rows = project.rows(ROWS)
    manifest = project.manifest(rows)
    how = ["--api-url", provider.url, "--json", "--concurrency", CONCURRENCY]
    killed(point, ["run", str(manifest), *how, *options], project.folder, project.environment)
    doubts = unrecorded(project)
    again = project.run(manifest, *options)
    assert again.exit_code == (3 if doubts else 0), again
    assert (again.report["items"], again.report["not_selected"]) == (SELECTED, ROWS - SELECTED)
    assert len(set(provider.asked) | doubts) == SELECTED
    assert project.run(manifest, *options).report["created"] == 0
    assert_recovers(project, manifest, rows)
    assert Counter(provider.asked) == Counter(row["text"] for row in rows)


@pytest.mark.parametrize("options", [SELECTIONS[0], pytest.param(SELECTIONS[1], marks=pytest.mark.slow)])
def test_a_killed_run_of_selected_rows_continues_with_all(
    project: Project, provider: FakeTTS, options: tuple[str, ...]
) -> None:
    rows = project.rows(ROWS)
    manifest = project.manifest(rows)
    how = ["--api-url", provider.url, "--json", "--concurrency", CONCURRENCY]
    killed(POINTS["answer-not-committed"], ["run", str(manifest), *how, *options], project.folder, project.environment)
    assert_recovers(project, manifest, rows)
    assert Counter(provider.asked) == Counter(row["text"] for row in rows)
