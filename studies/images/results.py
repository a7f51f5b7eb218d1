"""Results of the studies of images, as they are written and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nip_audio.core.metrics import Interval
from nip_audio.evaluation.nccr_ranks import Ranked
from studies.nccr.results import DetectionResults, Flagged

Shares = Mapping[str, Interval]
"""A share for each defence."""


@dataclass(frozen=True)
class Benign:
    """Accuracy on images that nobody attacked, and processor time per image."""

    images: int
    undefended: Interval
    behind: Shares
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class DefendedCell:
    """One attack: how often it succeeds, and the defence success rate (DSR) of each defence."""

    name: str
    attack: Mapping[str, Any]
    attempts: int
    examples: int
    dsr: Shares = field(default_factory=dict)
    success: Interval | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class AdaptiveCell:
    """One attack through each defence, and the share that is still classified correctly."""

    name: str
    attack: Mapping[str, Any]
    attempts: int
    still_right: Shares


@dataclass(frozen=True)
class MovedAtRandom:
    """Accuracy on images that are rotated and moved at random."""

    images: int
    accuracy: Interval


@dataclass(frozen=True)
class Detected:
    """What a shipped calibration makes of changed images among clean ones."""

    images: int
    clean: int
    auroc: Interval
    flagged: Flagged
    false_positives: Flagged


@dataclass(frozen=True)
class DefenceResults:
    """Defences of one model: benign accuracy, DSR, and what stands beside them in some studies."""

    model: str
    seed: int
    benign: Benign
    cells: Sequence[DefendedCell]
    adaptive: Sequence[AdaptiveCell] | None = None
    at_random: MovedAtRandom | None = None
    detection: Mapping[str, Detected] | None = None


@dataclass(frozen=True)
class OverlapResults:
    """Mean number of neurons that the selections of several methods share, of ten each."""

    model: str
    seed: int
    layer: str
    neurons: int
    images: int
    eps: float
    shared: Shares


@dataclass(frozen=True)
class SmallestCell:
    """AUROC of the baselines against one attack at full strength, or at the smallest that fools."""

    attack: str
    smallest: bool
    attempts: int
    examples: int
    median_eps: float
    judges: Shares


@dataclass(frozen=True)
class SmallestResults:
    """Baselines against examples of both kinds; clean images are correctly classified ones."""

    model: str
    seed: int
    clean: int
    cells: Sequence[SmallestCell]


@dataclass(frozen=True)
class RemoteResults:
    """One substitute of a served model, and its purifiers in front of the served model."""

    served: str
    seed: int
    recipe: str
    network: str
    queries: int
    requests: int
    agreement_held_out: float
    agreement: float
    agreement_images: int
    substitute_right: float
    remote_right: float
    benign: Benign
    white_box: Sequence[DefendedCell]
    transferred: Sequence[DefendedCell]
    queries_measuring: int


@dataclass(frozen=True)
class RankedResults:
    """Models in the order of their NCCR, and their accuracy by condition."""

    images: int
    seed: int
    ranked: Sequence[Ranked]
    accuracy: Mapping[str, Shares]


@dataclass(frozen=True)
class Counted:
    """Number of images flagged."""

    attacked: int
    clean: int


@dataclass(frozen=True)
class Mixed:
    """A folder of clean and attacked images, judged one by one and as a whole."""

    attack: str
    clean: int
    attacked: int
    by_rate: Counted
    by_discoveries: Counted
    images_a_second: float


@dataclass(frozen=True)
class Shrunk:
    """Clean images made smaller, and how many are flagged."""

    side: int
    images: int
    adversarial: int
    out_of_domain: int


@dataclass(frozen=True)
class ScreeningResults:
    """What the screening flags of a model's images."""

    seed: int
    rate: float
    discoveries: float
    mixed: Mixed
    shrunk: Sequence[Shrunk]


@dataclass(frozen=True)
class ImageResults:
    """All results, each by the name of the data set; ``remote`` also by that of the substitute."""

    detection: Mapping[str, DetectionResults] = field(default_factory=dict)
    nip: Mapping[str, DefenceResults] = field(default_factory=dict)
    spatial: Mapping[str, DefenceResults] = field(default_factory=dict)
    elasticity: Mapping[str, DefenceResults] = field(default_factory=dict)
    overlap: Mapping[str, OverlapResults] = field(default_factory=dict)
    smallest: Mapping[str, SmallestResults] = field(default_factory=dict)
    remote: Mapping[str, Mapping[str, RemoteResults]] = field(default_factory=dict)
    robustness: Mapping[str, RankedResults] = field(default_factory=dict)
    screening: Mapping[str, ScreeningResults] = field(default_factory=dict)
    backdoors: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
