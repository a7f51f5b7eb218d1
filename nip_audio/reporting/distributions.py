"""Draw how the distances, p-values and consistencies of a run are distributed."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from nip_audio.reporting.figure import Axis, Chart
from nip_audio.screening.records import ScreenRecord

__all__ = ["Distributions"]

Array = NDArray[np.float64]

_BARS = 40
_P_BARS = 20
_FARTHEST = 50.0


@dataclass
class Distributions:
    """Collects the numbers of records, a few bytes per file, and draws their distributions.

    Attributes:
        what: What distances are distances from, such as ``clean audio``.
        limits: Thresholds by name, taken from the records; of those of the distance, the lowest.
        highest: Highest threshold of the distance; each file may have one of its own.
        verdicts: Number of files for each verdict.
    """

    what: str = "clean audio"
    limits: dict[str, float] = field(default_factory=dict)
    verdicts: Counter[str] = field(default_factory=Counter)
    highest: float = 0.0
    _distances: array[float] = field(default_factory=lambda: array("d"))
    _flagged: array[int] = field(default_factory=lambda: array("b"))
    _p_values: array[float] = field(default_factory=lambda: array("d"))
    _consistencies: array[float] = field(default_factory=lambda: array("d"))

    def add(self, record: ScreenRecord) -> None:
        """Add the numbers of one record."""
        self.verdicts[record.verdict] += 1
        for name in ("domain_threshold", "consistency_threshold"):
            value = getattr(record.details, name, None)
            if value is not None:
                self.limits[name] = value
        if (threshold := record.distance_threshold) is not None:
            lowest = self.limits.get("distance_threshold", threshold)
            self.limits["distance_threshold"] = min(lowest, threshold)
            self.highest = max(self.highest, threshold)
        if record.distance is not None:
            self._distances.append(record.distance)
            self._flagged.append(any(f.risk == "adversarial" for f in record.findings))
        if record.p_value is not None:
            self._p_values.append(record.p_value)
        consistency = getattr(record.details, "consistency", None)
        if consistency is not None:
            self._consistencies.append(consistency)

    def distance_chart(self, clean: Sequence[float] | None) -> str | None:
        """Draw the distances of unflagged and flagged files, with those of clean files as a line.

        Args:
            clean: Distances of the calibration's clean files; None draws no line.

        Returns:
            SVG, or None if no file has a distance.
        """
        values = np.array(self._distances)
        if not len(values):
            return None
        flagged = np.array(self._flagged, dtype=bool)
        known = np.concatenate([values, np.asarray(clean if clean is not None else [])])
        low = max(float(known.min()), 1e-3)
        threshold = self.limits["distance_threshold"]
        high = max(float(known.max()), self.highest * 1.2, low * 1.1)
        high = min(high, max(self.highest, 1.0) * _FARTHEST)
        edges = np.geomspace(low, high, _BARS + 1)
        parts = [_counts(part, edges) for part in (values[~flagged], values[flagged])]
        expected = None
        if clean is not None and len(clean):
            expected = _counts(np.asarray(clean), edges) * (len(values) / len(clean))
        top = float(max((parts[0] + parts[1]).max(), 0 if expected is None else expected.max()))
        title = f"Number of files by distance from {self.what}"
        chart = Chart(
            title,
            Axis("distance (no unit, logarithmic)", low, high, logarithmic=True),
            Axis("files", 0.0, top * 1.12),
        )
        for low, high, usual, far in zip(edges, edges[1:], *parts, strict=False):
            span = f"distance {low:.3g}–{high:.3g}"
            if usual:
                chart.bar(low, high, 0, usual, "bar", f"{span}: {usual:g} not flagged")
            if far:
                chart.bar(low, high, usual, usual + far, "bar bad", f"{span}: {far:g} flagged")
        if expected is not None:
            xs, ys = np.repeat(edges, 2)[1:-1], np.repeat(expected, 2)
            chart.line(xs.tolist(), ys.tolist(), "expected")
        if self.thresholds_differ:
            lowest = f"lowest threshold {threshold:.3g}"  # one text: the two lines may be close
            chart.rule(threshold, "")
            chart.rule(self.highest, f"{lowest}, highest {self.highest:.3g}")
        else:
            chart.rule(threshold, f"threshold {threshold:.3g}")
        return chart.svg()

    @property
    def thresholds_differ(self) -> bool:
        """Whether not all files have one threshold of the distance, to three digits."""
        lowest = self.limits.get("distance_threshold", 0.0)
        return f"{lowest:.3g}" != f"{self.highest:.3g}"

    def p_value_chart(self) -> str | None:
        """Draw the p-values, which are evenly distributed for clean files, or None without any."""
        values = np.array(self._p_values)
        if not len(values):
            return None
        edges = np.linspace(0, 1, _P_BARS + 1)
        counts = _counts(values, edges)
        even = len(values) / _P_BARS
        chart = Chart(
            "Number of files by p-value",
            Axis(f"p-value: share of {self.what} at least as far off", 0.0, 1.0),
            Axis("files", 0.0, max(float(counts.max()), even) * 1.12),
        )
        for low, high, count in zip(edges, edges[1:], counts, strict=False):
            if count:
                kind = "bar bad" if high <= 1 / _P_BARS + 1e-9 else "bar"
                chart.bar(low, high, 0, count, kind, f"p {low:.2f}–{high:.2f}: {count:g} files")
        chart.line([0.0, 1.0], [even, even], "expected")
        return chart.svg()

    def consistency_chart(self) -> str | None:
        """Draw how similar each speaker's files sound, or None if none could be compared."""
        values = np.array(self._consistencies)
        if not len(values):
            return None
        threshold = self.limits.get("consistency_threshold")
        low = float(min(values.min(), threshold if threshold is not None else 1.0, 0.5))
        edges = np.linspace(low, 1.0, _BARS + 1)
        counts = _counts(values, edges)
        chart = Chart(
            "Number of files by mean cosine similarity to their speaker's other files",
            Axis("mean cosine similarity to the speaker's other files", low, 1.0),
            Axis("files", 0.0, float(counts.max()) * 1.12),
        )
        for left, right, count in zip(edges, edges[1:], counts, strict=False):
            if count:
                bad = threshold is not None and right <= threshold
                said = f"cosine {left:.2f}–{right:.2f}: {count:g} files"
                chart.bar(left, right, 0, count, "bar bad" if bad else "bar", said)
        if threshold is not None:
            chart.rule(threshold, f"threshold {threshold:.2f}")
        return chart.svg()


def _counts(values: Array, edges: Array) -> Array:
    """Count the values in each bar; the outermost bars hold everything beyond the ends."""
    return np.histogram(values.clip(edges[0], edges[-1]), edges)[0].astype(np.float64)
