"""The ETA, with its range: estimated from the pace so far, and only where that is known."""

from __future__ import annotations

import pytest

from batcher.formatting import span
from batcher.ledger.queries.eta import forecast
from tests.conftest import Project
from tests.support.fake_tts import FakeTTS
from tests.support.ledger_kit import AT, RUN, Book, sheet


def _done_at(book: Book, times: list[float]) -> None:
    book.take_in(sheet("one"))
    saved = "INSERT INTO events (item_key, attempt, event, state, at, run_id)"
    for at in times:
        book.execute(f"{saved} SELECT key, 1, 'saved', 'done', ?, ? FROM items", AT + at, RUN)


def test_a_steady_pace_gives_an_eta_with_hardly_a_range(book: Book) -> None:
    _done_at(book, [2.0 * i for i in range(100)])
    found = book.do(forecast, RUN, 30)
    assert found is not None
    assert (found.per_second, found.seconds) == pytest.approx((0.5, 60.0))
    assert (found.least_seconds, found.most_seconds) == pytest.approx((60.0, 60.0))


def test_a_varying_pace_widens_the_range(book: Book) -> None:
    _done_at(book, [float(i) for i in range(50)] + [50.0 + 4 * i for i in range(50)])
    found = book.do(forecast, RUN, 100)
    assert found is not None
    assert found.least_seconds == pytest.approx(100.0)
    assert found.most_seconds == pytest.approx(400.0, rel=0.05)
    assert found.least_seconds < found.seconds < found.most_seconds


@pytest.mark.parametrize(("done", "remaining"), [(14, 5), (100, 0), (0, 5)])
def test_no_eta_with_too_few_items_or_none_left(book: Book, done: int, remaining: int) -> None:
    _done_at(book, [float(i) for i in range(done)])
    assert book.do(forecast, RUN, remaining) is None


def test_a_run_that_stops_early_reports_its_eta(project: Project) -> None:
    """So does `status`."""
    manifest = project.manifest(40)
    ended = project.run(manifest, "--max-items", "20", "--concurrency", "10")
    assert ended.exit_code == 6
    for said in (ended.err, project.batcher("status", "--ledger", project.ledger).out):
        assert "items a minute: the remaining 20 need about" in said


def test_no_eta_while_the_account_is_halted(project: Project, provider: FakeTTS) -> None:
    """However quick the pace was before."""
    provider.credits = 20
    ended = project.run(project.manifest(40), "--concurrency", "10")
    assert (ended.exit_code, project.states()) == (4, {"done": 20, "pending": 20})
    for said in (ended.err, project.batcher("status", "--ledger", project.ledger).out):
        assert "items a minute" not in said


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h"), (200_000, "2 days")]
)
def test_a_span_is_shown_in_the_unit_that_fits(seconds: float, words: str) -> None:
    assert span(seconds) == words
