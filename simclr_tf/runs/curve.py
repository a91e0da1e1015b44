"""A curve of Braille dots: two across and four down in each character."""

import math
from collections.abc import Sequence

# Dots of a character by (row, column), as Unicode numbers them from U+2800 on.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def curve(xs: Sequence[float], ys: Sequence[float], width: int = 72, height: int = 10) -> list[str]:
    """Returns the lines of a plot with its axes.

    Where several points share a column of dots, their mean is drawn; columns are joined.

    Args:
        xs: ascending; ys: as many, finite, at least one.
        width: of the lines in characters, at least 24.
        height: of the curve in lines.
    """
    low, high = min(ys), max(ys)
    labels = [f"{y:.4g}" for y in (high, low)]
    margin = max(map(len, labels))
    columns, rows = 2 * (width - margin - 2), 4 * height
    heights: dict[int, list[float]] = {}
    for x, y in zip(xs, ys, strict=True):
        share = (x - xs[0]) / (xs[-1] - xs[0]) if xs[-1] > xs[0] else 0.0
        heights.setdefault(round(share * (columns - 1)), []).append(y)
    places = {
        column: _row(math.fsum(found) / len(found), low, high, rows)
        for column, found in heights.items()
    }
    cells = [[0] * (columns // 2) for _ in range(height)]
    before = None
    for column, row in places.items():
        for x, y in _joined(before, (column, row)):
            cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
        before = column, row
    lines = []
    for number, line in enumerate(cells):
        label = {0: labels[0], height - 1: labels[1]}.get(number, "")
        dots = "".join(chr(0x2800 + cell) if cell else " " for cell in line)
        lines.append(f"{label:>{margin}} ┤{dots}".rstrip())
    ends = f"{xs[0]:.10g}", f"{xs[-1]:.10g}"
    lines.append(f"{'':{margin}} └{'─' * (columns // 2)}")
    lines.append(f"{'':{margin}}  {ends[0]}{ends[1]:>{columns // 2 - len(ends[0])}}")
    return lines


def _row(y: float, low: float, high: float, rows: int) -> int:
    return round((high - y) / (high - low) * (rows - 1)) if high > low else rows // 2


def _joined(start: tuple[int, int] | None, end: tuple[int, int]) -> list[tuple[int, int]]:
    """The dots of a line from `start`, without it, to `end`."""
    if start is None:
        return [end]
    (x0, y0), (x1, y1) = start, end
    count = max(abs(x1 - x0), abs(y1 - y0), 1)
    return [
        (round(x0 + (x1 - x0) * i / count), round(y0 + (y1 - y0) * i / count))
        for i in range(1, count + 1)
    ]
