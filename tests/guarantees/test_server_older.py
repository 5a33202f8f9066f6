"""An older state of a ledger on a server, or one that was lost while several runs worked: nothing is bought again."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import postgres
from tests.support.fake_tts import FakeTTS

if TYPE_CHECKING:
    from tests.conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("project", ["postgres"], indirect=True)]
ROWS = 6


def begun(project: Project, provider: FakeTTS) -> Any:
    """A run that has created two of six items, which render until the test ends them."""
    provider.task_seconds = 600.0
    started = project.start_run(project.manifest(ROWS), "--concurrency", "2")
    provider.until(lambda: len(provider.creates) == 2, 30.0)
    time.sleep(1.0)
    return started


def create_two_more(provider: FakeTTS) -> None:
    for job in list(provider.jobs.values()):
        job.ends_at = 0.0
    provider.until(lambda: len(provider.creates) == 4, 60.0)
    time.sleep(1.0)


def assert_nothing_bought_again(project: Project, provider: FakeTTS, url: str, refused: int) -> None:
    """A run with the ledger at this URL ends with exit code `refused`; with --restored, it buys nothing twice."""
    project.use_server(url)
    provider.end_tasks()
    asked, manifest = len(provider.creates), project.folder / "lines.csv"
    plain = project.run(manifest)
    assert plain.exit_code == refused, plain
    if refused == 2:
        assert len(provider.creates) == asked
        assert project.start_run(manifest, "--restored").end(60.0).exit_code in (0, 3)
    assert max(Counter(provider.asked).values()) == 1


def test_results_are_not_complete_while_another_run_buys(
    project: Project, provider: FakeTTS, postgres_url: str
) -> None:
    """A run that ends early beside it does not say so in the folder's mark, which a restoration relies on."""
    first = begun(project, provider)
    second = project.start_run(project.folder / "lines.csv", "--concurrency", "2")
    second.until(lambda: project.query("SELECT count(*) FROM runs") == [(2,)])
    time.sleep(3.0)
    second.send(signal.SIGINT)
    assert second.end(60.0).exit_code == 6
    assert json.loads((project.audio / ".items/.ledger.json").read_text())["batches"] == {"lines": None}
    create_two_more(provider)
    first.send(signal.SIGKILL)
    with postgres.database_of(postgres_url) as url:
        assert_nothing_bought_again(project, provider, url, refused=2)


def test_a_dump_made_during_a_run_that_ended_later_is_older(
    project: Project, provider: FakeTTS, postgres_url: str
) -> None:
    """The folder's mark says that the run has ended, and the ledger does not."""
    first = begun(project, provider)
    with postgres.database_of(postgres_url) as url:
        postgres.copy(str(project.server), url)
        provider.end_tasks()
        assert first.end(60.0).exit_code == 0
        assert_nothing_bought_again(project, provider, url, refused=2)


def test_a_dump_made_during_a_run_that_was_killed_later_lacks_its_last_creates(
    project: Project, provider: FakeTTS, postgres_url: str
) -> None:
    """The intents file of its host has them: they are in doubt."""
    first = begun(project, provider)
    with postgres.database_of(postgres_url) as url:
        postgres.copy(str(project.server), url)
        create_two_more(provider)
        first.send(signal.SIGKILL)
        first.end()
        assert_nothing_bought_again(project, provider, url, refused=3)
        assert project.states() == {"done": 4, "in_doubt": 2}


def test_a_dump_without_the_last_run_is_older(project: Project, provider: FakeTTS, postgres_url: str) -> None:
    """Even if the intents file of that run is there: others may have bought before it."""
    manifest = project.manifest(ROWS)
    assert project.run(manifest, "--max-items", "1").exit_code == 6
    with postgres.database_of(postgres_url) as url:
        postgres.copy(str(project.server), url)
        assert project.run(manifest, "--max-items", "1").exit_code == 6
        first = begun(project, provider)
        first.send(signal.SIGKILL)
        first.end()
        assert_nothing_bought_again(project, provider, url, refused=2)
