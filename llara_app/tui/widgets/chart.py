"""Line charts in braille: two by four dots a cell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from textual.strip import Strip
from textual.widget import Widget

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
LABEL_WIDTH = 7


def braille(values: Sequence[float], width: int, height: int, low: float, high: float) -> list[str]:
    """`values`, spread over the whole width, as `height` lines of `width` braille characters.

    Neighbouring points are joined; each column of dots shows the mean of the values that fall into it.
    """
    columns, rows = width * 2, height * 4
    cells = [[0] * width for _ in range(height)]
    if not values or columns <= 0 or rows <= 0:
        return ["".join(chr(0x2800 + cell) for cell in line) for line in cells]
    span = (high - low) or 1.0
    previous: int | None = None
    for column in range(columns):
        first = column * len(values) // columns
        last = max(first + 1, (column + 1) * len(values) // columns)
        mean = sum(values[first:last]) / (last - first)
        row = round((rows - 1) * (1 - min(1.0, max(0.0, (mean - low) / span))))
        start = row if previous is None else previous + (row > previous) - (row < previous)
        for dot in range(min(start, row), max(start, row) + 1):
            cells[dot // 4][column // 2] |= _DOTS[dot % 4][column % 2]
        previous = row
    return ["".join(chr(0x2800 + cell) for cell in line) for line in cells]


class LineChart(Widget):
    """One curve with its scale to the left.

    Args:
        decimals: of the scale.
        low, high: fixed ends of the scale; by default those of the values.
    """

    DEFAULT_CSS = "LineChart { height: 1fr; min-height: 3; }"
    COMPONENT_CLASSES: ClassVar[set[str]] = {"chart--line", "chart--scale"}

    def __init__(
        self,
        *,
        decimals: int = 2,
        low: float | None = None,
        high: float | None = None,
        id: str | None = None,
        classes: str | None = None,
    ) -> None:
        super().__init__(id=id, classes=classes)
        self._decimals = decimals
        self._low = low
        self._high = high
        self._values: Sequence[float] = ()
        self._lines: list[str] = []

    def show(self, values: Sequence[float]) -> None:
        self._values = values
        self._lines = []
        self.refresh()

    def on_resize(self) -> None:
        self._lines = []

    def render_line(self, y: int) -> Strip:
        width, height = self.size
        low = self._low if self._low is not None else min(self._values, default=0.0)
        high = self._high if self._high is not None else max(self._values, default=1.0)
        if not self._lines:
            self._lines = braille(self._values, width - LABEL_WIDTH, height, low, high)
        value = {0: high, height - 1: low}.get(y)
        label = f"{value:.{self._decimals}f}" if value is not None and self._values else ""
        scale = self.rich_style + self.get_component_rich_style("chart--scale", partial=True)
        line = self.rich_style + self.get_component_rich_style("chart--line", partial=True)
        return Strip(
            [
                Segment(f"{label:>{LABEL_WIDTH - 2}} ", scale),
                Segment("┤" if value is not None else "│", scale),
                Segment(self._lines[y] if y < len(self._lines) else "", line),
            ]
        ).adjust_cell_length(width, self.rich_style)
