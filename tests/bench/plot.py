"""A curve over numbers of rows, on doubly logarithmic axes, beside the line of the same cost per row: SVG by hand."""

from __future__ import annotations

import math

_WIDTH, _HEIGHT, _EDGE = 480, 320, 56


def plot(name: str, unit: str, curve: dict[int, float]) -> str:
    """The picture. The line goes through the curve's last point: a curve above it on the left grows less than rows."""
    last = max(curve)
    line = {rows: curve[last] * rows / last for rows in curve}
    low, high = min(*curve.values(), *line.values()), max(curve.values())
    across = _Scale(min(curve), last, _EDGE, _WIDTH - 16)
    up = _Scale(max(low, high / 10_000), high * 1.5, _HEIGHT - _EDGE, 32)
    marks = "".join(
        f'<text x="{across(rows):.0f}" y="{_HEIGHT - _EDGE + 20}" text-anchor="middle">{rows:,}</text>'
        f'<circle cx="{across(rows):.1f}" cy="{up(value):.1f}" r="3"/>'
        f'<text x="{across(rows):.0f}" y="{up(value) - 8:.0f}" text-anchor="middle">{value:.3g}</text>'
        for rows, value in curve.items()
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="11"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="{_EDGE}" y="18" font-size="14">{name}: {unit} by rows; dashed: the same for each row</text>'
        + _path(line, across, up, 'stroke="gray" stroke-dasharray="4"')
        + _path(curve, across, up, 'stroke="black"')
        + f"{marks}</svg>"
    )


class _Scale:
    """From values to places, by the logarithm."""

    def __init__(self, low: float, high: float, begin: float, end: float) -> None:
        self._low = low
        self._begin = begin
        self._factor = (end - begin) / max(math.log(high / low), 1e-9)

    def __call__(self, value: float) -> float:
        return self._begin + math.log(max(value, self._low) / self._low) * self._factor


def _path(points: dict[int, float], across: _Scale, up: _Scale, style: str) -> str:
    places = " ".join(f"{across(rows):.1f},{up(value):.1f}" for rows, value in points.items())
    return f'<polyline fill="none" {style} points="{places}"/>'
