"""The line of the progress bar: the phase, the rate, the ETA and the credits, in as many columns as there are."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from io import StringIO

import pytest

from batcher.cli import screen
from batcher.cli.screen import Screen, bar_text
from batcher.formatting import columns_of
from batcher.item import Event, State
from batcher.reports.tally import Tally

BUSY = Tally(total=1_500, done=1_000, open=20, in_doubt=2, credits=8_650.0)


def test_a_run_that_creates_shows_open_tasks_rate_and_eta() -> None:
    """Items in doubt are not waited for."""
    shown = bar_text(replace(BUSY, done=502), 2.0)
    assert shown == "502 of 1,500 done, 120/min, ETA 8 min, 20 open, 2 in doubt, 8,650 credits left"


def test_the_last_phase_is_what_is_left_to_download() -> None:
    """Not that no task is open."""
    assert bar_text(Tally(total=1_000, done=540, to_download=460), 0.0) == "540 of 1,000 done, 460 to download"
    both = bar_text(replace(BUSY, to_download=3), 0.0)
    assert both == "1,000 of 1,500 done, 20 open, 3 to download, 2 in doubt, 8,650 credits left"


def test_in_a_narrow_line_the_least_important_is_left_out() -> None:
    busy = replace(BUSY, to_download=460)
    shown = {columns: bar_text(busy, 2.0, columns) for columns in (100, 62, 45, 20, 5)}
    assert all(columns_of(text) <= columns for columns, text in shown.items() if columns >= 20)
    assert shown[62] == "1,000 of 1,500 done, 20 open, 460 to download, 2 in doubt"
    assert shown[20] == shown[5] == "1,000 of 1,500 done"


def test_doubts_are_yellow_where_colours_are_wanted() -> None:
    """Colours take no columns."""
    plain, coloured = (bar_text(BUSY, 2.0, 70, colours=colours) for colours in (False, True))
    assert coloured == plain.replace("2 in doubt", "\x1b[33m2 in doubt\x1b[0m")


def test_credits_left_follow_the_costs_of_tasks_unless_answers_report_the_balance() -> None:
    tally = Tally(credits=100.0)
    for cost in (2.5, None, 1.5):
        tally.charged(cost)
    assert tally.credits == 96.0
    tally.balance_reported(90.0)
    tally.charged(5.0)
    assert tally.credits == 90.0


def test_what_no_run_finishes_is_not_waited_for() -> None:
    """Items that were rejected, failed or gone before or in this run, and those given up."""
    tally = Tally()
    tally.begin(dict.fromkeys(map(str, State), 1) | {State.DONE: 10})
    assert (tally.total, tally.done, tally.in_doubt, tally.ended) == (len(State) + 9, 10, 1, 4)
    assert tally.remaining == len(State) - 6
    tally.answered(Event.REJECTED)
    assert tally.remaining == len(State) - 7


class Terminal(StringIO):
    """A terminal that keeps what it shows."""

    def isatty(self) -> bool:
        return True

    def until_shows(self, words: str) -> None:
        """Wait until it shows these words."""
        give_up_at = time.monotonic() + 10.0
        while words not in self.getvalue():
            assert time.monotonic() < give_up_at, self.getvalue()
            time.sleep(0.005)


def terminal(monkeypatch: pytest.MonkeyPatch, seconds: float = 0.0) -> Terminal:
    """Standard error, on which progress is shown after this time."""
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setattr(screen, "_READING_SECONDS", seconds)
    monkeypatch.setattr(screen, "_TICK_SECONDS", 0.01)
    return shown


def test_a_long_comparison_is_shown_after_the_rows_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the time that it has taken; the next message takes its place."""
    shown, progress = terminal(monkeypatch), Screen()
    assert [*progress.reading(iter([1, 2, 3]), "lines.csv")] == [1, 2, 3]
    shown.until_shows("comparing lines.csv with the ledger: 00:00")
    assert "reading lines.csv: " in shown.getvalue()
    progress.say("ready")
    assert shown.getvalue().endswith("\rready\n")


def test_a_quick_comparison_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor one of a quiet command."""
    shown = terminal(monkeypatch, seconds=60.0)
    progress = Screen()
    progress.comparing("lines.csv")
    progress.close()
    assert shown.getvalue() == ""
    shown, quiet = terminal(monkeypatch), Screen(quiet=True)
    quiet.comparing("lines.csv")
    assert [*quiet.reading(iter([1]), "lines.csv")] == [1]
    assert shown.getvalue() == ""
