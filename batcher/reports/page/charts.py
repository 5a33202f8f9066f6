"""The page's charts as SVG text. They contain only numbers and our own words, so nothing needs escaping.

A chart is drawn on a grid, so it has at most a few thousand marks for any number of tasks. Colours are in `page.css`.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

from batcher.formatting import span
from batcher.ledger.queries.report import TaskTimes

KEY_DIGITS: Final = 16
"""Number of hex digits of a key that identify an item on a page."""
_KEYS: Final = 20
"""Maximum number of items that one dot leads to: its oddest."""
_WIDTH, _HEIGHT = 440, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 12, 26
_INNER_WIDTH: Final = _WIDTH - _LEFT - _RIGHT
_INNER_HEIGHT: Final = _HEIGHT - _TOP - _BOTTOM
_STEPS: Final = 180
"""Maximum number of points of a curve."""
_BARS: Final = 44
"""Maximum number of bars of a histogram."""
_FILES_PER_BAR: Final = 5
"""Minimum average number of files per bar; fewer files make fewer bars."""
_GRID: Final = (128, 56)
"""Columns and rows of the grid of a scatter chart."""
_IDLE_SECONDS: Final = 900.0
_IDLE_SHARE: Final = 0.05
"""An idle period is cut out if it is longer than both this many seconds and this share of the whole time."""
_BREAKS: Final = 5
"""Maximum number of idle periods cut out."""
_SECONDS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 604800)
"""Steps between clock times on the axis."""
_POLLS: Final = 12
"""This many polls or more share the last bar."""


class TimeAxis:
    """Maps times to x coordinates, with the longest idle periods between `times` cut out.

    `breaks` are the coordinates of the cuts.
    """

    def __init__(self, times: Sequence[float]) -> None:
        ordered = sorted(times)
        self.first, self.last = ordered[0], ordered[-1]
        least = max(_IDLE_SECONDS, _IDLE_SHARE * (self.last - self.first))
        idle = [(after - before, before) for before, after in pairwise(ordered)]
        cut = sorted(sorted((gap for gap in idle if gap[0] > least), reverse=True)[:_BREAKS], key=lambda gap: gap[1])
        self._begins = [begin for _, begin in cut]
        self._lost = [0.0]
        for length, _ in cut:
            self._lost.append(self._lost[-1] + length)
        self.active_seconds = max(self.last - self.first - self._lost[-1], 1.0)
        self.starts = [self.first, *(begin + length for length, begin in cut)]
        self.breaks = [self.x(start) for start in self.starts[1:]]

    def active(self, at: float) -> float:
        """Seconds from the first time to `at` without the idle periods that are cut out."""
        number = bisect_right(self._begins, at - 1e-6)
        within = 0.0 if number == 0 else max(0.0, self.starts[number] - at)  # inside an idle period: its end
        return at - self.first - self._lost[number] + within

    def x(self, at: float) -> float:
        """The x coordinate of `at`."""
        return _LEFT + _INNER_WIDTH * self.active(at) / self.active_seconds

    def marks(self) -> list[tuple[float, str]]:
        """Labelled coordinates: the start of each active period, or clock times if there is only one period."""
        if len(self.starts) > 1:
            every = [(self.x(start), _day(start)) for start in self.starts]
            return [mark for number, mark in enumerate(every) if number == 0 or mark[0] - every[number - 1][0] > 84]
        step = next((step for step in _SECONDS if self.active_seconds / step <= 5), _SECONDS[-1])
        offset = datetime.fromtimestamp(self.first).astimezone().utcoffset()
        shift = offset.total_seconds() if offset is not None else 0.0
        start = math.ceil((self.first + shift) / step) * step - shift
        clock = "%H:%M:%S" if step < 60 else "%H:%M" if step < 86400 else "%d %b"
        times = [start + number * step for number in range(6) if start + number * step <= self.last]
        return [(self.x(at), datetime.fromtimestamp(at).astimezone().strftime(clock)) for at in times]


def _day(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%d %b %H:%M")


def progress(tasks: Sequence[TaskTimes], axis: TimeAxis) -> str:
    """Cumulative numbers of tasks created, rendered and downloaded."""
    series = {
        "created": sorted(task.created_at for task in tasks),
        "rendered": sorted(task.rendered_at for task in tasks if task.rendered_at is not None),
        "downloaded": sorted(task.saved_at for task in tasks if task.saved_at is not None),
    }
    most = len(tasks)
    parts = [_frame(axis.marks(), most, _count, breaks=axis.breaks)]
    for name, times in series.items():
        points = _curve(times, axis, most)
        if name == "created" and points:
            parts.append(f'<path class="area" d="M{points} V{_HEIGHT - _BOTTOM} H{_LEFT} Z"/>')
        if points:
            parts.append(f'<path class="line {name}" d="M{points}"/>')
    totals = ", ".join(f"{len(times):,} {name}" for name, times in series.items())
    return _chart(f"Tasks over time: {totals}", parts)


def _curve(times: Sequence[float], axis: TimeAxis, most: int) -> str:
    """A rising line through a visible number of points."""
    if not times:
        return ""
    every = max(1, math.ceil(len(times) / _STEPS))
    chosen = [*range(0, len(times), every), len(times) - 1]
    points = [f"{axis.x(times[0]):.1f} {_HEIGHT - _BOTTOM}"]
    points += [f"{axis.x(times[number]):.1f} {_y(number + 1, most):.1f}" for number in chosen]
    return " L".join([*points, f"{axis.x(axis.last):.1f} {_y(len(times), most):.1f}"])


def throughput(tasks: Sequence[TaskTimes], axis: TimeAxis) -> str:
    """Files downloaded per minute, on the same time axis."""
    times = [axis.active(task.saved_at) for task in tasks if task.saved_at is not None]
    number = max(1, min(_BARS, len(times) // _FILES_PER_BAR))
    bins = Counter(min(number - 1, int(number * at / axis.active_seconds)) for at in times)
    minutes = axis.active_seconds / number / 60
    rates = {index: files / minutes for index, files in bins.items()}
    most = max(rates.values(), default=1.0)
    width = _INNER_WIDTH / number
    bars = [_bar(_LEFT + index * width, width, rate, most) for index, rate in sorted(rates.items())]
    mean = len(times) / (axis.active_seconds / 60)
    title = f"Files downloaded per minute: average {mean:,.1f}, maximum {most:,.1f}"
    return _chart(title, [_frame(axis.marks(), most, _rate, breaks=axis.breaks), *bars])


def polls(tasks: Sequence[TaskTimes]) -> str:
    """Histogram of the number of polls per task."""
    found = Counter(min(task.polls, _POLLS) for task in tasks)
    least, most = min(found), max(found.values())
    width = _INNER_WIDTH / (max(found) - least + 1)
    xs = {number: _LEFT + (number - least) * width for number in range(least, max(found) + 1)}
    marks = [(x + width / 2, f"{number}{'+' * (number == _POLLS)}") for number, x in xs.items()]
    bars = [_bar(xs[number], width, count, most) for number, count in sorted(found.items())]
    mean = sum(task.polls for task in tasks) / len(tasks)
    return _chart(f"Polls per task: average {mean:.1f}", [_frame(marks, most, _count), *bars])


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One item in a scatter chart. `y` is in seconds; the higher its `oddity`, the further it is from the usual."""

    x: float
    y: float
    key: str
    oddity: float


def scatter(dots: Iterable[Dot], title: str, unit: str) -> str:
    """One mark per grid cell with dots, darker with more of them; the oddest come first. The x axis is in `unit`.

    A mark names the keys of its items in `data-keys`, and the values of the first one in `data-at`.
    """
    ordered = sorted(dots, key=lambda dot: -dot.oddity)
    right, high = max(dot.x for dot in ordered) or 1.0, max(dot.y for dot in ordered) or 1.0
    columns, lines = _GRID
    cells: defaultdict[tuple[int, int], list[Dot]] = defaultdict(list)
    for dot in ordered:
        cells[round(columns * dot.x / right), round(lines * dot.y / high)].append(dot)
    most = max(map(len, cells.values()))
    step = _nice(right / 4)
    marks = [(_LEFT + _INNER_WIDTH * step * n / right, _count(step * n)) for n in range(int(right / step) + 1)]
    parts = [_frame(marks, high, span_of), f'<text class="unit" x="{_WIDTH - _RIGHT}" y="{_TOP - 4}">{unit} →</text>']
    for (column, line), found in cells.items():
        depth = 1 + min(3, int(4 * math.log1p(len(found) - 1) / math.log1p(most))) if most > 1 else 2
        x, y = _LEFT + _INNER_WIDTH * column / columns, _y(line, lines)
        keys = " ".join(dict.fromkeys(dot.key[:KEY_DIGITS] for dot in found[:_KEYS]))
        at = f"{found[0].x:,.0f} {unit}, {span_of(found[0].y)}"
        parts.append(f'<circle class="d{depth}" cx="{x:.1f}" cy="{y:.1f}" r="2.4" data-keys="{keys}" data-at="{at}"/>')
    return _chart(title, parts)


def span_of(seconds: float) -> str:
    """Label of a duration in seconds."""
    return "0" if not seconds else f"{seconds:.2g} s" if seconds < 5 else span(seconds)


def _count(number: float) -> str:
    """Label of a count; empty for fractions."""
    if number != int(number):
        return ""
    return f"{number / 1000:,.4g}k" if number >= 10_000 else f"{number:,.4g}"


def _rate(number: float) -> str:
    return f"{number:.3g}" if number < 100 else _count(round(number))


def _nice(least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, … that is at least `least`."""
    power = 10.0 ** math.floor(math.log10(max(least, 1.0)))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least)


def _y(value: float, most: float) -> float:
    return _HEIGHT - _BOTTOM - _INNER_HEIGHT * value / most


def _bar(x: float, width: float, value: float, most: float) -> str:
    top = _y(value, most)
    return (
        f'<rect class="bar" x="{x + width * 0.1:.1f}" y="{top:.1f}" width="{width * 0.8:.1f}" '
        f'height="{_HEIGHT - _BOTTOM - top:.1f}"/>'
    )


def _frame(
    marks: Iterable[tuple[float, str]], most: float, label: Callable[[float], str], breaks: Sequence[float] = ()
) -> str:
    """Faint lines at the bottom, middle and top with their values, and the marks of the x axis."""
    parts = []
    for share in (0.0, 0.5, 1.0):
        y = _y(share, 1.0)
        parts.append(f'<line class="rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="value" x="{_LEFT - 6}" y="{y + 3.5:.1f}">{label(share * most)}</text>')
    parts += [f'<line class="break" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>' for x in breaks]
    for x, text in marks:
        side = " first" if x < _LEFT + 20 else " last" if x > _WIDTH - 40 else ""
        parts.append(f'<text class="mark{side}" x="{x:.1f}" y="{_HEIGHT - 8}">{text}</text>')
    return "".join(parts)


def _chart(title: str, parts: Sequence[str]) -> str:
    inner = "".join(parts)
    return f'<svg role="img" viewBox="0 0 {_WIDTH} {_HEIGHT}" aria-label="{title}">{inner}</svg>'
