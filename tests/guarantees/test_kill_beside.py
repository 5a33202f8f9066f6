"""The kill matrix with a neighbour: a run is killed at each step while another works on the same ledger on a server.

The other takes over what the killed one leaves, and ends; a second run finds nothing to create, and a person settles
what is in doubt. Nothing is bought twice or lost, and never are more than `CONCURRENCY` tasks open.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.guarantees.test_kill_matrix import MATRIX, SURELY, Doubt, assert_kept, settle
from tests.support.purchases import MostOpen

if TYPE_CHECKING:
    from tests.conftest import Project
    from tests.support.fake_tts import FakeTTS
    from tests.support.processes import Started

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("project", ["postgres"], indirect=True)]

ROWS: Final = 30
CONCURRENCY: Final = 4
START: Final = {
    *("run-noted-not-committed", "import-not-committed", "import-committed", "account-not-committed"),
    *("profile-read", "spill-reserved"),
}
"""Steps of the matrix before anything can be bought."""
WORK: Final = {
    *("claim-not-committed", "claim-committed", "create-to-be-sent", "create-connected", "answer-in-memory"),
    *("answer-not-committed", "answer-committed", "answer-spilled", "task-read", "ending-not-committed"),
    *("audio-to-be-fetched", "file-to-be-renamed", "file-in-place", "saved-not-committed", "link-not-committed"),
}
"""Steps of the matrix from the first create to the last link."""
END: Final = {"results-half-written", "end-to-be-noted", "end-not-committed", "spill-to-be-removed", "ledger-closed"}
"""Steps of the matrix once everything is done."""
SHARING: Final = {
    "intents-to-be-noted": "before batcher.ledger.storage.intents:IntentsFile.append 2",
    "intents-noted": "after batcher.ledger.storage.intents:IntentsFile.append 2",
    "share-not-committed": "after batcher.ledger.lifecycle.account:set_creating 1",
    "takeover-not-committed": "after batcher.ledger.lifecycle.collection:take_over 1",
    "slots-to-be-left": "before batcher.ledger.lifecycle.account:set_creating 2",
}
"""Steps that only runs on a server have."""


def cases() -> list[Any]:
    """Each step, reached by the run that starts first and by the one that joins; nobody joins at the end."""
    steps = {name: (points[0], doubt, calls[0]) for name, doubt, calls, *points in reversed(MATRIX) if len(points) == 1}
    points = {name: (steps[name][0].format(n=steps[name][2]), steps[name][1]) for name in START | WORK | END}
    points |= {name: (point, Doubt.MAYBE) for name, point in SHARING.items()}
    return [
        pytest.param(*points[name], joins, id=f"{name}-{'joins' if joins else 'first'}")
        for name in sorted(points)
        for joins in (True, False)
        if joins or name not in START
    ]


@pytest.mark.parametrize(("point", "doubt", "joins"), cases())
def test_a_run_beside_takes_over_from_one_that_is_killed_at_this_step(
    project: Project, provider: FakeTTS, point: str, doubt: Doubt, joins: bool
) -> None:
    """Tasks take long until both runs work or one is dead, so that neither has done everything by then."""
    rows, open_ = project.rows(ROWS), MostOpen(provider)
    manifest = project.manifest(rows)
    provider.task_seconds, provider.create_seconds = 600.0, 0.05
    doomed, other = start_both(project, manifest, point, joins)
    until(lambda: not doomed.is_running or works(project) == 2)
    provider.end_tasks()
    assert doomed.end().exit_code == -signal.SIGKILL, f"{point}: was not reached"
    ended = other.end()
    again = project.run(manifest)
    doubts = {text for (text,) in project.query("SELECT text FROM items WHERE state = 'in_doubt'")}
    assert ended.exit_code in (0, 3), ended
    assert (again.exit_code, again.report["created"]) == (3 if doubts else 0, 0), again
    assert bool(doubts) or doubt is not SURELY or joins  # the first claim of a run that joins may find no slot free
    assert_kept(project, rows, doubts)
    if doubts:
        settle(project, rows, doubts)
        assert project.run(manifest).exit_code == 0
        assert_kept(project, rows, set())
    assert Counter(provider.asked).most_common(1)[0][1] == 1
    assert open_.most <= CONCURRENCY
    assert project.query("SELECT id FROM runs WHERE ended_at IS NULL") == []
    assert [path for path in project.folder.iterdir() if path.suffix in (".spill", ".intents")] == []


def start_both(project: Project, manifest: Path, point: str, joins: bool) -> tuple[Started, Started]:
    """The run to be killed, which `joins` the other or starts before it, and the other."""
    how = ("--concurrency", str(CONCURRENCY))
    if joins:
        other = project.start_run(manifest, *how)
        until(lambda: len(project.provider.creates) == CONCURRENCY)
        # Otherwise a manifest that is as the other run has imported it would not be read.
        return project.start_run(manifest, *how, "--rescan", points=point), other
    doomed = project.start_run(manifest, *how, points=point)
    until(lambda: not doomed.is_running or len(project.provider.creates) == CONCURRENCY)
    return doomed, project.start_run(manifest, *how)


def works(project: Project) -> int:
    """The number of runs that create or wait for their turn."""
    ((number,),) = project.query("SELECT count(*) FROM runs WHERE is_creating IS NOT NULL AND ended_at IS NULL")
    return int(number)


def until(holds: Callable[[], object]) -> None:
    """Wait until `holds` is true."""
    give_up_at = time.monotonic() + 20.0
    while not holds():
        assert time.monotonic() < give_up_at, "the runs do not do what the test waits for"
        time.sleep(0.02)
