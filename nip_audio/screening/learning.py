"""Fit the detector of a purifier's response to a model's clean recordings."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from sklearn.model_selection import GroupKFold
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.cache import keep_or_make
from nip_audio.core.fingerprint import fingerprint
from nip_audio.core.nccr import NccrConfig
from nip_audio.core.seeds import generator_of, seed_of
from nip_audio.detectors.perceptron import AttackPerceptron
from nip_audio.errors import CalibrationError
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.changes import CHANGES
from nip_audio.screening.lessons import (
    ATTACKS,
    PURIFIED,
    PURIFIED_KIND,
    Lesson,
    attacked_lesson,
    by_length,
    distances,
    harmless_lesson,
    purified_lesson,
)
from nip_audio.screening.measure import device_of
from nip_audio.screening.probes import ResponseProbe
from nip_audio.screening.response import (
    ATTACK,
    NARROW,
    Examples,
    ResponseDetector,
    measure_windows,
    odds_distance,
    scaled_rows,
)
from nip_audio.screening.sounds import spectrum_of

__all__ = [
    "HARMLESS",
    "LESSONS",
    "LOOKS_ATTACKED",
    "MOST_WINDOWS",
    "RECORDED",
    "LearntResponse",
    "learn_response",
    "response_config",
]

Array = NDArray[np.float64]

HARMLESS = (*CHANGES, PURIFIED)
"""Names of the harmless lessons."""

LESSONS = (*HARMLESS, *(attack.name for attack in ATTACKS))
"""Names of the lessons, harmless ones first."""

MOST_WINDOWS = 300
"""Largest number of clean windows that lessons are made from."""

RECORDED = "none"
"""Name of the lesson of the windows as they were recorded."""

LOOKS_ATTACKED = 3.0
"""Out-of-fold distance from which a recorded window looks attacked: twenty times more likely than
not. No window of the shipped calibrations reaches it; eleven of twelve weak attacks reach twice as
much."""

_VERSION = 1  # raised when the same inputs give other rows
_FOLDS = 5
_HIDDEN, _ALPHA, _EPOCHS, _CLIP = 48, 0.3, 300, 5.0
_EXAMPLES = 40  # of each condition, kept to say what a file resembles
_TRIED = 60  # windows of which harmless moves of the embedding are measured
_MOVED = 0.75  # quantile of harmless moves below which an attack teaches nothing

Progress = Callable[[str], None]
"""Called with the name of each lesson that is done."""


@dataclass(frozen=True)
class LearntResponse:
    """A fitted detector, and what it does with the lessons of speakers that it has not heard.

    Attributes:
        detector: Fitted detector.
        distances: Sorted out-of-fold distances of the windows of each lesson.
        harmless: Spectrum of each window of the harmless lessons, (n, 2 B) by lesson.
        owners: Speaker of each window, the same in every harmless lesson.
        recorded: Out-of-fold distance of each window as it was recorded.
    """

    detector: ResponseDetector
    distances: dict[str, Array]
    harmless: dict[str, Array]
    owners: tuple[str, ...]
    recorded: Array

    def spectra(self, *, narrow: bool) -> tuple[list[Array], list[str]]:
        """Return the spectra of harmless windows of wide or narrow band, and their speakers."""
        chosen = [n for n in self.harmless if (self.detector.kinds[n] == NARROW) == narrow]
        return [row for n in chosen for row in self.harmless[n]], [*self.owners] * len(chosen)


@dataclass(frozen=True)
class _Rows:
    """Measured lesson: (n, F) rows, (n, 2 B) spectra, originals' places, and conditions."""

    rows: Array
    spectra: Array
    places: tuple[int, ...]
    names: tuple[str, ...]

    def dump(self) -> bytes:
        """Return the content of a file."""
        tensors = {
            "rows": torch.from_numpy(self.rows),
            "spectra": torch.from_numpy(self.spectra),
            "places": torch.tensor(self.places),
        }
        names = torch.frombuffer(bytearray(json.dumps(self.names).encode()), dtype=torch.uint8)
        return save({**tensors, "names": names})

    def without(self, left_out: Container[int]) -> _Rows:
        """Leave out what was made from some windows, given by their places."""
        kept = [i for i, place in enumerate(self.places) if place not in left_out]
        places = tuple(self.places[i] for i in kept)
        names = tuple(self.names[i] for i in kept)
        return _Rows(self.rows[kept], self.spectra[kept], places, names)

    @staticmethod
    def load(content: bytes) -> _Rows:
        """Read what ``dump`` returned."""
        tensors = load(content)
        names = json.loads(bytes(tensors["names"].tolist()))
        rows, spectra = tensors["rows"].numpy(), tensors["spectra"].numpy()
        return _Rows(rows, spectra, tuple(tensors["places"].tolist()), tuple(names))


@dataclass(frozen=True)
class _Lessons:
    """Everything that lessons are made and measured from."""

    pretrained: PretrainedModel
    probe: ResponseProbe
    windows: Sequence[Tensor]
    sample_rate_hz: int
    seed: int
    kept: Path | None

    def measured(self) -> Iterator[tuple[str, _Rows]]:
        """Yield every lesson, measured; an attack that moves nothing gives an empty one."""
        settings: dict[str, Any] = {"sample_rate_hz": self.sample_rate_hz, "seed": self.seed}
        model, windows = self.pretrained.model, self.windows
        for name in CHANGES:
            yield self._kept(name, partial(harmless_lesson, name, windows, **settings))
        purifier = self.probe.purifier
        purified = partial(purified_lesson, model, purifier, windows, seed=self.seed)
        yield self._kept(PURIFIED, purified)
        settings["least_move"] = _harmless_move(self.pretrained, windows, **settings)
        for attack in ATTACKS:
            make = partial(attacked_lesson, attack, model, windows, **settings)
            yield self._kept(attack.name, make)

    def _kept(self, name: str, make: Callable[[], Lesson]) -> tuple[str, _Rows]:
        if self.kept is None:
            return name, self._measure(name, make)
        path = self.kept / f"{fingerprint([self._key, name])[:16]}.safetensors"
        run = partial(self._measure, name, make)
        return name, keep_or_make(path, run, dump=_Rows.dump, load=_Rows.load)

    @cached_property
    def _key(self) -> str:
        inputs = [self.probe.to_json(), self.seed, list(self.windows)]
        return fingerprint([_VERSION, self.pretrained.model_id, *inputs])

    def _measure(self, name: str, make: Callable[[], Lesson]) -> _Rows:
        model, lesson = self.pretrained.model, make()
        rows, spectra = ([np.zeros(0)] * len(lesson.windows) for _ in range(2))
        for part in by_length(lesson.windows):
            together = torch.stack([lesson.windows[i] for i in part]).to(device_of(model))
            generator = generator_of(self.seed, "response", name, part[0])
            found = measure_windows(model, self.probe, together, generator=generator)
            with torch.no_grad():
                inputs = model.to_input(Batch(together)).x
            for i, row, x in zip(part, found, inputs, strict=True):
                rows[i], spectra[i] = row, spectrum_of(model, x)
        return _Rows(_stack(rows), _stack(spectra), lesson.places, lesson.names)


def response_config(config: NccrConfig) -> NccrConfig:
    """Return the settings of a response: the layers of a detector, and its second largest noise.

    While this was built, one copy found as much on the x-vector as two, and a smaller noise found
    less; no table shows it.
    """
    noise = config.noises[-2] if len(config.noises) > 1 else config.noises[0]
    return NccrConfig(config.layers, (noise,), 1)


def learn_response(
    pretrained: PretrainedModel,
    probe: ResponseProbe,
    windows: Sequence[Tensor],
    owners: Sequence[str],
    *,
    file_of: Sequence[int],
    sample_rate_hz: int,
    seed: int,
    kept: Path | None = None,
    keep_outliers: bool = False,
    progress: Progress = lambda lesson: None,
) -> tuple[LearntResponse, dict[int, float]]:
    """Fit a detector on clean windows, changed harmlessly and attacked.

    Thresholds are made of the log-odds of harmless windows from a network that was fitted without
    their speaker.

    Args:
        pretrained: Model that attacks are made on.
        probe: What is measured.
        windows: At most ``MOST_WINDOWS`` clean waveforms (N,) of the model's rate.
        owners: Speaker of each.
        file_of: Place of each window's file.
        sample_rate_hz: Sample rate of the windows.
        seed: Seed of all draws.
        kept: Folder that keeps measured lessons, from which an interrupted fit resumes; None keeps
            none.
        keep_outliers: Whether to learn from files, too, that look attacked themselves.
        progress: Called after each lesson.

    Returns:
        What was learnt, and the places of the files that were left out because they look attacked,
        each with the distance of its worst window.

    Raises:
        CalibrationError: If there are fewer speakers than folds, or no attack moves the model's
            embeddings farther than harmless changes do.
    """
    if len(set(owners)) < _FOLDS:
        raise CalibrationError(
            f"clean audio of {len(set(owners))} speakers or files, expected at least {_FOLDS}; add "
            "clean files of more speakers"
        )
    lessons = _Lessons(pretrained, probe, windows, sample_rate_hz, seed, kept)
    found = {}
    for name, lesson in lessons.measured():
        if lesson.places:
            found[name] = lesson
        progress(name)

    def fit(lessons: dict[str, _Rows]) -> LearntResponse:
        return _fit(
            lessons,
            owners,
            lambda network, scores, examples: ResponseDetector(
                probe,
                network,
                len({file_of[place] for place in lessons[RECORDED].places}),
                scores,
                {name: CHANGES[name].kind if name in CHANGES else PURIFIED_KIND for name in scores},
                examples,
            ),
            seed,
        )

    learnt = fit(found)
    outliers: dict[int, float] = {}
    for place, distance in zip(found[RECORDED].places, learnt.recorded, strict=True):
        if distance >= LOOKS_ATTACKED and not keep_outliers:
            outliers[file_of[place]] = max(outliers.get(file_of[place], 0.0), float(distance))
    if not outliers:
        return learnt, {}
    gone = {place for place, file in enumerate(file_of) if file in outliers}
    return fit({name: one.without(gone) for name, one in found.items()}), outliers


def _fit(
    found: dict[str, _Rows],
    owners: Sequence[str],
    build: Callable[[AttackPerceptron, dict[str, Array], Examples], ResponseDetector],
    seed: int,
) -> LearntResponse:
    """Fit the network, its thresholds and the examples to measured lessons."""
    lessons = found.items()
    attacked = np.concatenate(
        [np.full(len(one.places), name not in HARMLESS) for name, one in lessons]
    )
    if not attacked.any():
        raise CalibrationError(
            "no attack moved this model's embeddings farther than noise, rooms and codecs do, so "
            "there is nothing to tell apart; use `clean_only=True`"
        )
    rows = scaled_rows(np.concatenate([one.rows for _, one in lessons]))
    groups = np.concatenate([[owners[i] for i in one.places] for _, one in lessons])
    lesson_of = np.concatenate([np.full(len(one.places), name) for name, one in lessons])
    distances_ = np.empty(len(rows))
    for learn, rest in GroupKFold(_FOLDS).split(rows, groups=groups):
        fitted = _network(rows[learn], attacked[learn], seed)
        distances_[rest] = odds_distance(fitted.distance(rows[rest]))
    by_lesson = {name: np.sort(distances_[lesson_of == name]) for name in found}
    rng = np.random.default_rng(seed_of(seed, "examples"))
    chosen = np.concatenate(
        [rng.permutation(np.flatnonzero(lesson_of == name))[:_EXAMPLES] for name in found]
    )
    conditions = [name for _, one in lessons for name in one.names]
    families = [name if name in HARMLESS else ATTACK for name in lesson_of[chosen]]
    examples = Examples(
        rows[chosen].astype(np.float16).astype(np.float64),
        tuple(conditions[i] for i in chosen),
        tuple(families),
    )
    scores = {name: by_lesson[name] for name in found if name in HARMLESS}
    network = _network(rows, attacked, seed)
    harmless = {name: found[name].spectra for name in scores}
    heard = tuple(owners[place] for place in found[RECORDED].places)
    recorded = distances_[lesson_of == RECORDED]
    return LearntResponse(build(network, scores, examples), by_lesson, harmless, heard, recorded)


def _stack(rows: Sequence[Array]) -> Array:
    return np.stack(rows) if rows else np.zeros((0, 0))


def _network(rows: Array, attacked: Array, seed: int) -> AttackPerceptron:
    parameters = _HIDDEN * (rows.shape[1] + 2) + 1
    network = AttackPerceptron(
        parameters=parameters, alpha=_ALPHA, max_iter=_EPOCHS, clip=_CLIP, random_state=seed
    )
    return network.fit(rows, attacked)


def _harmless_move(
    pretrained: PretrainedModel, windows: Sequence[Tensor], *, sample_rate_hz: int, seed: int
) -> float:
    """Return how far harmless changes move an embedding, as a cosine distance."""
    tried = windows[:: max(1, len(windows) // _TRIED)][:_TRIED]
    moves: list[float] = []
    for name in ("white", "room", "mp3", "babble"):
        changed = harmless_lesson(name, tried, sample_rate_hz=sample_rate_hz, seed=seed).windows
        for clean, other in zip(tried, changed, strict=True):
            size = min(len(clean), len(other))
            if size == len(clean):
                moves.append(float(distances(pretrained.model, clean[None], other[None])[0]))
    return float(np.quantile(moves, _MOVED))
