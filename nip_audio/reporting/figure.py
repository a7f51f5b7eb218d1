"""Draw plain SVG charts for the report.

All text is escaped, and colours come from the page's style sheet, so that dark mode works.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from nip_audio.reporting.escaping import html_text

__all__ = ["Axis", "Chart", "nice_ticks"]

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 40


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes:
        label: Quantity on the axis, with its unit.
        low: Value at the start of the axis.
        high: Value at the end of the axis.
        logarithmic: Whether the axis is logarithmic; ``low`` must then be above 0.
        ticks: Values to mark, each with its text; None chooses round values.
    """

    label: str
    low: float
    high: float
    logarithmic: bool = False
    ticks: Sequence[tuple[float, str]] | None = None

    def share(self, value: float) -> float:
        """Return the position of a value along the axis, clipped to [0, 1]."""
        low, high = self.low, self.high
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        return min(max((value - low) / (high - low), 0.0), 1.0)

    def marks(self) -> Sequence[tuple[float, str]]:
        """Return the values to mark, each with its text."""
        if self.ticks is not None:
            return self.ticks
        values = _log_ticks(self.low, self.high) if self.logarithmic else None
        return [(v, f"{v:g}") for v in values or nice_ticks(self.low, self.high)]


@dataclass
class Chart:
    """A chart to which elements are added one by one.

    Attributes:
        title: What the chart shows, for screen readers.
        x: Horizontal axis.
        y: Vertical axis.
        width: Width in drawing units; a line of text is about 12 units high.
        height: Height in drawing units.
    """

    title: str
    x: Axis
    y: Axis
    width: int = 430
    height: int = 220
    _parts: list[str] = field(default_factory=list)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the drawing coordinates of a point."""
        inner_width = self.width - _LEFT - _RIGHT
        inner_height = self.height - _TOP - _BOTTOM
        return (
            round(_LEFT + self.x.share(x) * inner_width, 1),
            round(_TOP + (1 - self.y.share(y)) * inner_height, 1),
        )

    def bar(self, low: float, high: float, bottom: float, top: float, kind: str, said: str) -> None:
        """Draw a bar with a tooltip.

        Args:
            low: Left end on the x axis.
            high: Right end on the x axis.
            bottom: Lower end on the y axis.
            top: Upper end on the y axis.
            kind: CSS class of the bar.
            said: Text of the tooltip.
        """
        (left, upper), (right, lower) = self.at(low, top), self.at(high, bottom)
        self._parts.append(
            f'<rect class="{kind}" x="{left}" y="{upper}" width="{max(right - left - 1, 0.8):.1f}" '
            f'height="{max(lower - upper, 0):.1f}"><title>{html_text(said)}</title></rect>'
        )

    def line(self, xs: Sequence[float], ys: Sequence[float], kind: str) -> None:
        """Draw a line through points; ``kind`` is its CSS class."""
        points = " ".join(f"{x},{y}" for x, y in map(self.at, xs, ys))
        self._parts.append(f'<polyline class="{kind}" points="{points}"/>')

    def band(
        self, xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], kind: str
    ) -> None:
        """Fill the area between two lines; ``kind`` is its CSS class."""
        there = [self.at(x, y) for x, y in zip(xs, highs, strict=True)]
        back = [self.at(x, y) for x, y in zip(xs, lows, strict=True)][::-1]
        points = " ".join(f"{x},{y}" for x, y in (*there, *back))
        self._parts.append(f'<polygon class="{kind}" points="{points}"/>')

    def rule(self, value: float, text: str) -> None:
        """Draw a vertical line across the chart, with a text beside it."""
        x, upper = self.at(value, self.y.high)
        _, lower = self.at(value, self.y.low)
        left = x > self.width * 0.55
        self._parts.append(
            f'<line class="rule" x1="{x}" x2="{x}" y1="{upper}" y2="{lower}"/>'
            f'<text class="rule-text" x="{x - 5 if left else x + 5}" y="{upper + 11}" '
            f'text-anchor="{"end" if left else "start"}">{html_text(text)}</text>'
        )

    def picture(self, data_url: str) -> None:
        """Fill the chart with an image, given as a ``data:`` URL."""
        (left, upper), (right, lower) = (
            self.at(self.x.low, self.y.high),
            self.at(self.x.high, self.y.low),
        )
        self._parts.append(
            f'<image x="{left}" y="{upper}" width="{right - left:.1f}" '
            f'height="{lower - upper:.1f}" preserveAspectRatio="none" href="{data_url}"/>'
        )

    def svg(self) -> str:
        """Return the chart as an SVG element."""
        left, lower = self.at(self.x.low, self.y.low)
        right, upper = self.at(self.x.high, self.y.high)
        back, front = (
            [],
            [f'<line class="axis" x1="{left}" x2="{right}" y1="{lower}" y2="{lower}"/>'],
        )
        for value, text in self.y.marks():
            _, y = self.at(self.x.low, value)
            back.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{y}" y2="{y}"/>')
            front.append(
                f'<text x="{left - 5}" y="{y + 4}" text-anchor="end">{html_text(text)}</text>'
            )
        for value, text in self.x.marks():
            x, _ = self.at(value, self.y.low)
            front.append(f'<line class="axis" x1="{x}" x2="{x}" y1="{lower}" y2="{lower + 4}"/>')
            front.append(
                f'<text x="{x}" y="{lower + 16}" text-anchor="middle">{html_text(text)}</text>'
            )
        middle_x, middle_y = (left + right) / 2, (upper + lower) / 2
        front.append(
            f'<text x="{middle_x}" y="{self.height - 6}" text-anchor="middle">'
            f"{html_text(self.x.label)}</text>"
            f'<text x="12" y="{middle_y}" text-anchor="middle" '
            f'transform="rotate(-90 12 {middle_y})">{html_text(self.y.label)}</text>'
        )
        return (
            f'<svg class="chart" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{html_text(self.title)}">{"".join((*back, *self._parts, *front))}</svg>'
        )


def nice_ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Return round values within a range, for the ticks of an axis.

    Example:
        >>> nice_ticks(0, 70)
        [0.0, 20.0, 40.0, 60.0]
    """
    raw = (high - low) / about
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float] | None:
    """Return 1, 2, 5, 10, … within a range; None if fewer than three fit."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    wide = high / low > 200
    values = [m * 10.0**d for d in decades for m in ((1,) if wide else (1, 2, 5))]
    inside = [v for v in values if low * 0.999 <= v <= high * 1.001]
    return inside if len(inside) >= 3 else None
