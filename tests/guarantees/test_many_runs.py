"""Several runs work on one ledger on a server: they share its items and limits, and buy nothing twice."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fake_tts import Create, FakeTTS

if TYPE_CHECKING:
    from tests.conftest import Project
    from tests.support.processes import Started

pytestmark = pytest.mark.parametrize("project", ["postgres"], indirect=True)


class Open:
    """The most tasks that were open at the provider at once."""

    def __init__(self, provider: FakeTTS) -> None:
        self.most = 0
        self._provider = provider
        provider.on_create = self._count

    def _count(self, _: Create) -> None:
        now = time.monotonic()
        self.most = max(self.most, 1 + sum(job.ends_at > now for job in list(self._provider.jobs.values())))


def assert_bought_once(project: Project, rows: int) -> None:
    """Check that every text is done or in doubt, bought once, and no task is missing from the ledger."""
    provider = project.provider
    assert max(Counter(provider.asked).values()) == 1
    recorded = {task_id for (task_id,) in project.query("SELECT task_id FROM tasks")}
    in_doubt = {text for (text,) in project.query("SELECT text FROM items WHERE state = 'in_doubt'")}
    for text, task_ids in provider.paid.items():
        assert recorded.issuperset(task_ids) or text in in_doubt
    assert project.query("SELECT count(*) FROM items WHERE state = 'done'") == [(rows - len(in_doubt),)]


def started(project: Project, number: int, *arguments: Any) -> list[Started]:
    """This many runs of the same manifest, started together."""
    return [project.start_run(*arguments) for _ in range(number)]


def test_three_runs_started_together_on_a_new_database_share_its_items(project: Project, provider: FakeTTS) -> None:
    """Each text is bought once, and never more than --concurrency tasks are open; every run ends with 0."""
    open_, provider.task_seconds = Open(provider), 0.2
    manifest = project.manifest(60)
    ended = [one.end() for one in started(project, 3, manifest, "--concurrency", "6")]
    assert [one.exit_code for one in ended] == [0, 0, 0], ended
    assert_bought_once(project, 60)
    project.assert_whole(project.rows(60))
    assert open_.most <= 6
    assert sum(one.report["created"] for one in ended) == 60
    assert min(one.report["created"] for one in ended) >= 10, ended
