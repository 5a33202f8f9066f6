"""`plan` says what a run would do and cost, and does nothing of it."""

from __future__ import annotations

from typing import Any

from tests.conftest import Project
from tests.fake_tts import FakeTTS


def _plan(project: Project, *arguments: Any) -> Any:
    return project.batcher("plan", *arguments, "--api-url", project.provider.url, "--json").report


def test_a_plan_leaves_nothing_behind(project: Project, provider: FakeTTS) -> None:
    """Before the first run nothing is known of prices, and neither a task nor a ledger comes of planning."""
    rows = [*project.rows(3), {"id": "twin", "text": "Line number 1 of the script.", "voice": "anna"}]
    manifest = project.manifest(rows)
    found = _plan(project, manifest)
    assert (found["rows"], found["items"], found["shared"], found["new"]) == (4, 3, 1, 3)
    assert (found["estimate"], found["suffices"]) == (None, None)
    assert found["balance"] == provider.credits
    assert found["columns_sent"] == {"id": "id", "text": "text", "voice": "voice"}
    assert provider.creates == []
    assert list(project.folder.iterdir()) == [manifest]


def test_a_plan_knows_prices_and_changes(project: Project, provider: FakeTTS) -> None:
    """After a run the estimate comes from its tasks; changed fields are named; what the balance pays for is counted."""
    rows = project.rows(4)
    assert project.run(project.manifest(rows)).exit_code == 0
    rows[0]["text"] += " And more."
    rows[1]["voice"] = "ben"
    provider.credits = 4.5
    manifest = project.manifest([*rows, *project.rows(6, first=5)])
    found = _plan(project, manifest)
    assert (found["new"], found["done"]) == (8, 2)
    assert found["changed"] == {"text": ["r1"], "voice": ["r2"]}
    assert 7.9 < found["estimate"]["credits"] < 9
    assert (found["suffices"], found["stops_after"]) == (False, 4)
    told = project.batcher("plan", manifest, "--api-url", provider.url)
    assert "1 rows changed their voice since the last run: r2" in told.out
    assert "would last for about 4 items" in told.out
    assert len(provider.creates) == 4


def test_a_plan_exits_like_the_run_it_foresees(project: Project, provider: FakeTTS) -> None:
    """A plan with faults, or one that would want --rebuy, exits 2 and says why; `run --dry-run` is the same."""
    rows = [{"id": row["id"], "text": row["text"]} for row in project.rows(2)]
    manifest = project.manifest(rows)
    assert project.run(manifest, "--voice", "anna").exit_code == 0
    for command in (("plan",), ("run", "--dry-run")):
        wanted = project.batcher(*command, manifest, "--voice", "ben", "--api-url", provider.url)
        assert wanted.exit_code == 2
        assert "voice from anna to ben" in wanted.out
        assert project.batcher(*command, manifest, "--voice", "anna", "--api-url", provider.url).exit_code == 0
    faulty = project.batcher("plan", manifest, "--api-url", provider.url)
    assert faulty.exit_code == 2
    assert "no voice" in faulty.out
    assert len(provider.creates) == 2


def test_a_plan_works_beside_a_run_and_without_a_token(project: Project, provider: FakeTTS) -> None:
    """A plan needs neither the lock nor a token: without one the balance is unknown."""
    provider.task_seconds = 1.5
    manifest = project.manifest(2)
    started = project.start_run(manifest)
    provider.until(lambda: len(provider.creates) == 2)
    environment = {"BATCHER_API_TOKEN": ""}
    found = project.batcher("plan", manifest, "--json", environment=environment)
    assert found.exit_code == 0
    assert (found.report["new"], found.report["balance"]) == (0, None)
    assert started.end().exit_code == 0
