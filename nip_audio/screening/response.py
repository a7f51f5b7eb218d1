"""Judge files by how a purifier responds to them: the detector that knows an attack from noise.

A small network was fitted to tell attacked from harmless windows of a model's clean recordings
(``screening.lessons``), and its thresholds hold for each kind of harmless condition by itself: at
most the stated share is flagged of clean recordings, of noisy ones and of those over a telephone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import NccrConfig
from nip_audio.core.state import State
from nip_audio.detectors.conformal import (
    TailFit,
    conformal_p_value,
    conformal_threshold,
    exponential_tail,
    files_needed,
)
from nip_audio.detectors.fitted import FittedPerceptron
from nip_audio.errors import CalibrationError
from nip_audio.purifiers.nip_guided import GuidedNip
from nip_audio.purifiers.response import measure_response
from nip_audio.screening.measured import Measured
from nip_audio.screening.probes import Place, ResponseProbe

__all__ = [
    "ATTACK",
    "NARROW",
    "Examples",
    "ResponseDetector",
    "measure_windows",
    "odds_distance",
    "scaled_rows",
    "scaled_tensor",
]

Array = NDArray[np.float64]

ATTACK = "attack"
"""Family of the examples that are attacked."""

NARROW = "telephone"
"""Kind of conditions of which nothing above the band of a telephone is left."""

_UNCHANGED = "none"
_EVEN_ODDS = float(np.log(2))
_TOGETHER = 8  # windows in one batch
_NEAREST = 9
_WINDOWS_S = (0.1, 60.0)  # what a description may say; shorter ones would be millions a file


@dataclass(frozen=True)
class Examples:
    """Measured windows in known conditions, to say what a file resembles.

    Attributes:
        rows: (n, F) scaled rows, as ``scaled_rows`` returns them.
        names: Condition of each, such as ``white noise at 25 dB``.
        families: Family of each condition, such as ``white noise``; attacks have the family
            ``attack``.
    """

    rows: Array
    names: tuple[str, ...]
    families: tuple[str, ...]


@dataclass(frozen=True)
class ResponseDetector:
    """A fitted detector of attacks by a purifier's response.

    Its distance is log(1 + odds of an attack), at least 0: about 0.7 where attack and harmless
    are as likely as each other, and about the log-odds where an attack is likely.

    Attributes:
        probe: What is measured.
        network: Network from scaled rows to the log-odds of an attack.
        files: Number of clean files, which limits the rate; their windows are not independent.
        scores: Sorted out-of-fold distances of harmless windows by condition, (n,) each.
        kinds: Kind of each condition, as ``changes.Kind``; the rate holds in each kind.
        examples: Measured windows in known conditions.
    """

    probe: ResponseProbe
    network: FittedPerceptron
    files: int
    scores: Mapping[str, Array]
    kinds: Mapping[str, str]
    examples: Examples = field(repr=False)

    @property
    def distances(self) -> Array:
        """Sorted distances of the clean windows as they were recorded."""
        return self.scores[_UNCHANGED]

    def rows(self, measured: Measured) -> Array:
        """Return the measured rows of the windows of a file, (windows, F)."""
        return measured.evidence.reshape(-1, self.network.n_features_in_)

    def distances_of(self, rows: Array) -> Array:
        """Return the distance of each measured row, (n, F) → (n,)."""
        return odds_distance(self.network.distance(scaled_rows(rows)))

    def distance(self, measured: Measured) -> float:
        """Return the distance of the worst window of a file."""
        return float(self.distances_of(self.rows(measured)).max())

    def worst(self, measured: Measured) -> int:
        """Return the place of the worst window of a file."""
        return int(self.distances_of(self.rows(measured)).argmax())

    def threshold(self, false_positive_rate: float, place: Place) -> float:
        """Return the distance above which a file is flagged, at least that of even odds.

        It is the largest of the conformal thresholds of the kinds of conditions that the file may
        be in, so that the rate holds in each. It holds about: the windows that are made from one
        file are not independent. Of several windows of a file the worst counts, so that each gets
        its share of the rate, which is extrapolated from a fitted tail.

        Raises:
            CalibrationError: If there are too few clean files for this rate.
        """
        if self.files < files_needed(false_positive_rate):
            raise CalibrationError(
                f"{self.files} clean files cannot give a false-positive rate of "
                f"{false_positive_rate:g}; at least {files_needed(false_positive_rate)} are "
                "needed: add files, or allow a higher rate with `fpr`"
            )
        limits, share = [], false_positive_rate / place.windows
        for scores, tail in self._alike(place):
            limits.append(conformal_threshold(scores, false_positive_rate))
            if share < min(tail.share, false_positive_rate):
                limits.append(tail.threshold(share))
            else:
                limits.append(conformal_threshold(scores, share))
        return max(_EVEN_ODDS, *limits)

    def p_value(self, distance: float, place: Place) -> float:
        """Return the largest conformal p-value among the kinds of conditions of the file.

        It is at least 1 / (n + 1) for n clean files. With several windows it is also at least
        their number times the share of windows beyond the worst one, by a fitted tail.
        """
        found = [1 / (self.files + 1)]
        for scores, tail in self._alike(place):
            found.append(conformal_p_value(scores, distance))
            if place.windows > 1:
                found.append(place.windows * _survival(scores, tail, distance))
        return min(1.0, max(found))

    def tail_p_value(self, distance: float, place: Place) -> float:
        """Return a p-value that can fall below 1 / (n + 1), for comparing many files.

        Beyond the largest tenth of the calibration's distances it comes from a fitted tail and is
        an extrapolation.
        """
        found = [_survival(scores, tail, distance) for scores, tail in self._alike(place)]
        return min(1.0, max(found) * place.windows)

    def resembles(self, row: Array) -> str:
        """Return the condition that most of the nearest examples were in.

        A window that is more likely harmless than attacked is compared with harmless ones only.

        Args:
            row: (F,) measured row of a window.

        Returns:
            The condition of the nearest example of the most frequent family, with its strength.
        """
        scaled = self._standardised(scaled_rows(row[None]))
        away = np.square(self._places - scaled).sum(axis=1)
        if float(self.distances_of(row[None])[0]) <= _EVEN_ODDS:
            away = np.where(np.array(self.examples.families) == ATTACK, np.inf, away)
        nearest = away.argsort(kind="stable")[:_NEAREST]
        families = [self.examples.families[i] for i in nearest]
        family = max(families, key=families.count)
        return self.examples.names[int(nearest[families.index(family)])]

    def to_state(self, model_id: str) -> State:
        """Return the tensors and settings of a calibration file."""
        purifier = self.probe.purifier.to_state(model_id)
        conditions = list(self.scores)
        tensors = {
            **{f"purifier.{name}": tensor for name, tensor in purifier.tensors.items()},
            **{f"network.{name}": tensor for name, tensor in self.network.to_tensors().items()},
            **{f"scores.{i}": torch.from_numpy(self.scores[n]) for i, n in enumerate(conditions)},
            "examples": torch.from_numpy(self.examples.rows).half(),
        }
        meta = {
            "purifier": dict(purifier.meta),
            "nccr": self.probe.config.to_json(),
            "names": self.probe.names,
            "window_s": self.probe.window_s,
            "files": self.files,
            "conditions": conditions,
            "kinds": [self.kinds[name] for name in conditions],
            "examples": list(self.examples.names),
            "families": list(self.examples.families),
        }
        return State("response", model_id, tensors, meta)

    @staticmethod
    def from_state(state: State) -> ResponseDetector:
        """Rebuild a detector from ``to_state``."""
        meta, tensors = state.meta, state.tensors

        def part(name: str) -> dict[str, Tensor]:
            start = f"{name}."
            return {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}

        if not _WINDOWS_S[0] <= float(meta["window_s"]) <= _WINDOWS_S[1]:
            raise ValueError(f"its windows last {meta['window_s']} s")
        scores = part("scores")
        purifier = State("guided purifier", state.model_id, part("purifier"), meta["purifier"])
        probe = ResponseProbe(
            NccrConfig.from_json(meta["nccr"]),
            bool(meta["names"]),
            GuidedNip.from_state(purifier),
            float(meta["window_s"]),
        )
        return ResponseDetector(
            probe,
            network=FittedPerceptron.from_tensors(part("network")),
            files=int(meta["files"]),
            scores={n: scores[str(i)].numpy() for i, n in enumerate(meta["conditions"])},
            kinds=dict(zip(meta["conditions"], meta["kinds"], strict=True)),
            examples=Examples(
                tensors["examples"].double().numpy(),
                tuple(meta["examples"]),
                tuple(meta["families"]),
            ),
        )

    def _alike(self, place: Place) -> list[tuple[Array, TailFit]]:
        """Return the distances, and their tails, of the kinds of conditions of a file.

        They are those of all kinds where the calibration has heard none of the file's.
        """
        alike = [one for kind, one in self._by_kind.items() if (kind == NARROW) == place.narrow]
        return alike or list(self._by_kind.values())

    @cached_property
    def _by_kind(self) -> dict[str, tuple[Array, TailFit]]:
        found = {}
        for kind in dict.fromkeys(self.kinds.values()):
            parts = [scores for name, scores in self.scores.items() if self.kinds[name] == kind]
            together = np.sort(np.concatenate(parts))
            found[kind] = together, exponential_tail(together)
        return found

    @cached_property
    def _places(self) -> Array:
        return self._standardised(self.examples.rows)

    def _standardised(self, scaled: Array) -> Array:
        weights = self.network.weights_
        clip = float(weights["clip"].item())
        return np.asarray(((scaled - weights["center"]) / weights["scale"]).clip(-clip, clip))


def _survival(scores: Array, tail: TailFit, distance: float) -> float:
    """Return the share of windows beyond a distance, from the tail where it was fitted."""
    if distance > tail.limit:
        return tail.p_value(distance)
    return float((scores >= distance).mean())


def odds_distance(log_odds: Array) -> Array:
    """Return log(1 + odds), which is at least 0 and grows with the log-odds."""
    return np.asarray(np.logaddexp(0.0, log_odds))


def scaled_rows(rows: Array) -> Array:
    """Compress rows, of which some are heavy-tailed: x → sign(x) log(1 + 20 |x|)."""
    return np.asarray(scaled_tensor(torch.from_numpy(rows)).numpy())


def scaled_tensor(rows: Tensor) -> Tensor:
    """Compute ``scaled_rows`` in the autograd graph."""
    return rows.sign() * torch.log1p(20 * rows.abs())


def measure_windows(
    model: InstrumentedModel, probe: ResponseProbe, windows: Tensor, *, generator: torch.Generator
) -> Array:
    """Measure windows of one length, a few at a time.

    Args:
        model: Model that the purifier was trained for.
        probe: What is measured.
        windows: (n, *S) raw items.
        generator: Random generator of the noise.

    Returns:
        (n, F) rows: the response, and the logarithm of the length.
    """
    measured = model if probe.names else model.without_head()
    rows = [
        measure_response(measured, probe.purifier, Batch(part), probe.config, generator=generator)
        for part in torch.split(windows, _TOGETHER)
    ]
    sizes = np.full((len(windows), 1), np.log(windows.shape[-1]))
    return np.concatenate([np.concatenate(rows), sizes], axis=1)
