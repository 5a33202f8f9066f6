"""A run on standard error: a bar on a terminal, a line every 30 s elsewhere, only problems when quiet."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, TypeVar

from batcher.clock import Clock
from batcher.formatting import amount, coloured, columns_of, span, wrapped
from batcher.reports.observer import Work
from batcher.reports.tally import Tally

T = TypeVar("T")
_BAR_SECONDS: Final = 0.2
_LINE_SECONDS: Final = 30.0
_RATE_SECONDS: Final = 60.0
"""The rate and the ETA are those of this time."""
_READING_SECONDS: Final = 1.0
"""Reading a file shows progress from then on."""
_TICK_SECONDS: Final = 1.0
_BAR_COLUMNS: Final = 18
"""Columns of a terminal's line that the text leaves to the bar and the percentage, at least."""


class Screen:
    """Shows a run's tally until closed, and prints messages without tearing the bar.

    `colours`: whether messages are coloured; None on terminals only.
    """

    def __init__(self, *, quiet: bool = False, colours: bool | None = None) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._colours = self._terminal if colours is None else colours
        self._bar: Any = None
        self._ticker: _Ticker | None = None

    def begin(self, work: Work) -> None:  # noqa: ARG002
        """Show nothing: the messages say what is worked on."""
        self._stop_ticker()

    def say(self, line: str, colour: str | None = None) -> None:
        """Print a message, unless quiet."""
        if not self._quiet:
            self.warn(line, colour)

    def warn(self, line: str, colour: str | None = None) -> None:
        """Print a message, even if quiet."""
        if self._terminal:
            line = wrapped(line, _width())
        self.write(coloured(line, colour) if self._colours else line)

    def write(self, line: str) -> None:
        """Print a line as it is, such as one of the log."""
        self._stop_ticker()
        # A closed standard error is no reason to stop the run.
        with suppress(OSError):
            if self._bar is not None:
                self._bar.write(line, file=sys.stderr)
            elif sys.stderr is not None:
                sys.stderr.write(line + "\n")
                sys.stderr.flush()

    def reading(self, rows: Iterator[T], name: str) -> Iterator[T]:
        """The same rows; on a terminal their number is shown while they are read, if that takes long.

        Then it shows that they are compared, until anything else is shown or `close` is called.
        """
        return rows if self._quiet or not self._terminal else self._shown(rows, name)

    def _shown(self, rows: Iterator[T], name: str) -> Iterator[T]:
        from tqdm import tqdm

        self._stop_ticker()
        layout = "reading {desc}: {n:,} rows"
        yield from tqdm(rows, name, bar_format=layout, delay=_READING_SECONDS, leave=False, dynamic_ncols=True)
        self.comparing(name)

    def comparing(self, name: str) -> None:
        """Show on a terminal that the file is compared with the ledger, if that takes long."""
        if not self._quiet and self._terminal:
            self._stop_ticker()
            self._ticker = _Ticker(f"comparing {name} with the ledger")

    def _stop_ticker(self) -> None:
        if self._ticker is not None:
            self._ticker.stop()
            self._ticker = None

    async def follow(self, tally: Tally, clock: Clock) -> None:
        """Show the tally until cancelled."""
        if self._quiet:
            return
        if self._terminal:
            await self._draw(tally, clock)
        else:
            await self._print(tally, clock)

    def close(self) -> None:
        """Stop updating the bar; it stays visible."""
        self._stop_ticker()
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    async def _draw(self, tally: Tally, clock: Clock) -> None:
        from tqdm import tqdm

        pace = _Pace()
        layout = self._layout(tally, pace, clock)
        self._bar = tqdm(total=tally.total, initial=tally.done, bar_format=layout, dynamic_ncols=True, file=sys.stderr)
        try:
            while True:
                self._update(tally, pace, clock)
                await clock.sleep(_BAR_SECONDS)
        finally:
            self._update(tally, pace, clock)

    def _update(self, tally: Tally, pace: _Pace, clock: Clock) -> None:
        if self._bar is None:
            return
        with suppress(OSError):
            self._bar.bar_format = self._layout(tally, pace, clock)
            self._bar.n = min(tally.done, tally.total)
            self._bar.refresh()

    def _layout(self, tally: Tally, pace: _Pace, clock: Clock) -> str:
        """The bar's line in the notation of tqdm."""
        pace.note(tally.done, clock.steady())
        text = bar_text(tally, pace.per_second(), (_width() or 80) - _BAR_COLUMNS, colours=self._colours)
        return f"{{percentage:3.0f}}%|{{bar}}| {text}"

    async def _print(self, tally: Tally, clock: Clock) -> None:
        pace = _Pace()
        while True:
            pace.note(tally.done, clock.steady())
            await clock.sleep(_LINE_SECONDS)
            pace.note(tally.done, clock.steady())
            self.say(bar_text(tally, pace.per_second()))


class _Ticker:
    """A line that shows what takes so long, and for how long already; drawn by a thread, since the work blocks."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._draw, name="ticker", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Remove the line."""
        self._stopped.set()
        self._thread.join()

    def _draw(self) -> None:
        if self._stopped.wait(_READING_SECONDS):
            return
        from tqdm import tqdm

        layout = "{desc}: {elapsed}"
        with suppress(OSError), tqdm(desc=self._text, bar_format=layout, leave=False, dynamic_ncols=True) as line:
            while not self._stopped.wait(_TICK_SECONDS):
                line.refresh()


class _Pace:
    """How many items were done lately."""

    def __init__(self) -> None:
        self._noted: deque[tuple[float, int]] = deque()

    def note(self, done: int, at: float) -> None:
        self._noted.append((at, done))
        while len(self._noted) > 2 and self._noted[1][0] <= at - _RATE_SECONDS:
            self._noted.popleft()

    def per_second(self) -> float:
        """Items per second over the last minute; 0 until one was done."""
        (began, before), (now, done) = self._noted[0], self._noted[-1]
        return (done - before) / max(1.0, now - began)


def bar_text(tally: Tally, per_second: float, columns: int | None = None, *, colours: bool = False) -> str:
    """What is done and what is next. With `columns`, the least important parts that do not fit are left out."""
    parts = [_Part(f"{tally.done:,} of {tally.total:,} done", 0)]
    if per_second > 0:
        per_minute = per_second * 60
        parts.append(_Part(f"{per_minute:,.{0 if per_minute >= 10 else 1}f}/min", 5))
        if tally.remaining:
            parts.append(_Part(f"ETA {span(tally.remaining / per_second)}", 3))
    if tally.open:
        parts.append(_Part(f"{tally.open:,} open", 2))
    if tally.to_download:
        parts.append(_Part(f"{tally.to_download:,} to download", 1))
    if tally.remaining and not tally.open and not tally.to_download:
        parts.append(_Part(f"{tally.remaining:,} to go", 1))
    if tally.in_doubt:
        parts.append(_Part(f"{tally.in_doubt:,} in doubt", 2, "yellow"))
    if tally.credits is not None:
        parts.append(_Part(f"{amount(tally.credits)} credits left", 4))
    while columns is not None and len(parts) > 1 and columns_of(", ".join(part.text for part in parts)) > columns:
        parts.remove(max(parts, key=lambda part: part.rank))
    return ", ".join(part.shown(colours) for part in parts)


class _Part:
    """A part of the line, the more important the lower its rank."""

    def __init__(self, text: str, rank: int, colour: str | None = None) -> None:
        self.text = text
        self.rank = rank
        self._colour = colour

    def shown(self, colours: bool) -> str:
        return coloured(self.text, self._colour) if colours else self.text


def _width() -> int | None:
    """Columns of the terminal; None if unknown."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or None
    except (OSError, ValueError):
        return None
