"""A run on standard error: a bar on a terminal, a line every 30 s elsewhere, only problems when quiet."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any, Final

from batcher.clock import Clock
from batcher.formatting import amount
from batcher.reports.observer import Work
from batcher.reports.tally import Tally

_BAR_SECONDS: Final = 0.2
_LINE_SECONDS: Final = 30.0


class Screen:
    """Shows a run's tally until closed, and prints messages without tearing the bar."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._bar: Any = None

    def begin(self, work: Work) -> None:
        """Show nothing: the messages say what is worked on."""

    def say(self, line: str) -> None:
        """Print a message, unless quiet."""
        if not self._quiet:
            self.warn(line)

    def warn(self, line: str) -> None:
        """Print a message, even if quiet."""
        # A closed standard error is no reason to stop the run.
        with suppress(OSError):
            if self._bar is not None:
                self._bar.write(line, file=sys.stderr)
            elif sys.stderr is not None:
                sys.stderr.write(line + "\n")
                sys.stderr.flush()

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
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    async def _draw(self, tally: Tally, clock: Clock) -> None:
        from tqdm import tqdm

        layout = "{l_bar}{bar}| {n:,} of {total:,} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
        self._bar = tqdm(
            total=tally.total, initial=tally.done, unit=" items", bar_format=layout, dynamic_ncols=True, file=sys.stderr
        )
        try:
            while True:
                self._update(tally)
                await clock.sleep(_BAR_SECONDS)
        finally:
            self._update(tally)

    def _update(self, tally: Tally) -> None:
        if self._bar is None:
            return
        with suppress(OSError):
            self._bar.set_postfix_str(_state(tally), refresh=False)
            self._bar.update(tally.done - self._bar.n)
            self._bar.refresh()

    async def _print(self, tally: Tally, clock: Clock) -> None:
        begun, before = clock.steady(), tally.done
        while True:
            await clock.sleep(_LINE_SECONDS)
            rate = (tally.done - before) / max(1.0, clock.steady() - begun) * 60
            self.say(f"{tally.done:,} of {tally.total:,} done, {rate:,.0f}/min, {_state(tally)}")


def _state(tally: Tally) -> str:
    parts = [f"{tally.open:,} open"]
    if tally.in_doubt:
        parts.append(f"{tally.in_doubt:,} in doubt")
    if tally.credits is not None:
        parts.append(f"{amount(tally.credits)} credits left")
    return ", ".join(parts)
