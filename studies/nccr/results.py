"""Results of detection, of clips as well as of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nip_audio.core.metrics import Interval

Flagged = Mapping[str, Interval]
"""Share that is flagged, by false-positive rate."""


@dataclass(frozen=True)
class Judged:
    """What one detector makes of one attack; ``auroc_against_correct`` is of images only."""

    auroc: Interval
    flagged: Flagged
    auroc_against_correct: Interval | None = None


@dataclass(frozen=True)
class DetectionCell:
    """One attack, and what every detector makes of the examples that fool the model."""

    name: str
    attempts: int
    examples: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    attack: str | None = None
    eps: float | None = None
    median_l2: float | None = None
    median_changed: float | None = None
    judges: Mapping[str, Judged] = field(default_factory=dict)
    roc: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class CleanGroup:
    """What is flagged of clean or harmlessly changed items, by detector."""

    clips: int
    judges: Mapping[str, Flagged]
    control: str | None = None


@dataclass(frozen=True)
class Cost:
    """Cost of a baseline per item."""

    passes: float
    seconds: float | None = None


@dataclass(frozen=True)
class Compared:
    """AUROC of a detector on the items that all detectors judge, and how far others are ahead."""

    cells: Sequence[Interval]
    mean: Interval | None = None
    beaten_by: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparisons:
    """All detectors on the same items."""

    clean: int
    cells: Sequence[str]
    examples: Sequence[int]
    judges: Mapping[str, Compared]
    costs: Mapping[str, Cost]


@dataclass(frozen=True)
class AdaptiveRow:
    """An attack on model and detector together."""

    judge: str
    attack: Mapping[str, Any]
    attempts: int
    success: Interval
    flagged: Flagged | None = None


@dataclass(frozen=True)
class DetectionResults:
    """Results of one system; ``about`` says how they were made."""

    calibrate: int
    clean: int
    accuracy: float
    judges: Mapping[str, str]
    passes: float
    false_positives: Mapping[str, CleanGroup]
    cells: Sequence[DetectionCell]
    baselines: Comparisons | None = None
    seconds: float | None = None
    controls: Sequence[CleanGroup] = ()
    adaptive: Sequence[AdaptiveRow] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
