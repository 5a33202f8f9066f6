"""What a provider was asked for, beside what a ledger knows of it."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conftest import Project
    from tests.support.fake_tts import Create, FakeTTS


class MostOpen:
    """The most tasks that were open at the provider at once."""

    def __init__(self, provider: FakeTTS) -> None:
        self.most = 0
        self._provider = provider
        provider.on_create = self._count

    def _count(self, _: Create) -> None:
        now = time.monotonic()
        self.most = max(self.most, 1 + sum(job.ends_at > now for job in list(self._provider.jobs.values())))


def assert_all_bought_once(project: Project, rows: int) -> None:
    """Check that everything is done, or in doubt for good reason, and that nothing was bought twice."""
    assert_none_twice_or_lost(project)
    [(in_doubt,)] = project.query("SELECT count(*) FROM items WHERE state = 'in_doubt'")
    assert project.query("SELECT count(*) FROM items WHERE state = 'done'") == [(rows - in_doubt,)]


def assert_none_twice_or_lost(project: Project) -> None:
    """Check that no text was created twice, and that the ledger has each task that was paid for, or a doubt."""
    assert max(Counter(project.provider.asked).values()) == 1
    recorded = {task_id for (task_id,) in project.query("SELECT task_id FROM tasks")}
    in_doubt = {text for (text,) in project.query("SELECT text FROM items WHERE state = 'in_doubt'")}
    for text, task_ids in project.provider.paid.items():
        assert recorded.issuperset(task_ids) or text in in_doubt, text
