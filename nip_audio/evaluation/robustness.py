"""NCCR as a measure of robustness: how much models react to the same noise, and their rank.

Source: "Neuron Coverage Change Rate" (Shi), Sec. 4: the NCCR of every item of one clean test set
on several models, l2 norm, ten draws; the model that changes least is taken for the most robust.
No attack is needed, and none is measured. Whether the rank agrees with that by accuracy under
attack is another question: see ``nccr_ranks.agreement``, and docs/results/robustness.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.audio.manifest import Recording
from nip_audio.core.adapter import Batch
from nip_audio.core.modality import Reader
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import NccrConfig, NccrResult, change_rate, measure_nccr
from nip_audio.core.noise import Noise
from nip_audio.errors import FileError, InputError
from nip_audio.evaluation.nccr_ranks import Ranked, rank_models
from nip_audio.models.modalities import modality_of
from nip_audio.models.pretrained import PretrainedModel
from nip_audio.screening.measure import noise_generator

__all__ = [
    "DEFAULT_LAYERS",
    "DEFAULT_NOISE",
    "LAST_TAP",
    "LOGITS",
    "RobustnessResult",
    "layer_rates",
    "measure_robustness",
    "require_comparable",
]

Array = NDArray[np.float64]

LAST_TAP = "last tap"
"""The last of a card's default taps, the pooled or embedding layer: every architecture has one."""
LOGITS = "logits"
"""What a model's head makes of its embedding."""

DEFAULT_LAYERS = (LAST_TAP, LOGITS)
DEFAULT_NOISE = Noise("uniform", "input", 8 / 255)
"""The paper's |ε| < 8/255, of the model's own input. Deviation: the paper speaks of Gaussian noise
inside that range and gives no deviation; here it is uniform."""


@dataclass(frozen=True)
class RobustnessResult:
    """NCCR of the same files on several models.

    Attributes:
        noise: The noise.
        draws: Of it, for each file.
        files: Ids of those that could be measured.
        speakers: Whose recordings they are; a file without a speaker stands for itself.
        rates: By layer as asked for and by model name, (files,).
        tapped: By layer and model name, what that layer is called in the model.
        failures: Of files that could not be read.
    """

    noise: Noise
    draws: int
    files: tuple[str, ...]
    speakers: tuple[str, ...]
    rates: Mapping[str, Mapping[str, Array]]
    tapped: Mapping[str, Mapping[str, str]]
    failures: tuple[FileError, ...]

    def ranking(self, layer: str, *, seed: int) -> list[Ranked]:
        """Rank the models by what this layer shows; see ``rank_models``."""
        return rank_models(self.rates[layer], self.speakers, seed=seed)

    def to_json(self, *, seed: int) -> dict[str, Any]:
        """Return rounded plain values; ``seed`` is of the bootstrap."""
        return {
            "noise": self.noise.name,
            "draws": self.draws,
            "seed": seed,
            "files": list(self.files),
            "failed": [str(failure) for failure in self.failures],
            "layers": {
                layer: [
                    ranked.to_json()
                    | {
                        "layer": self.tapped[layer][ranked.model],
                        "nccr": [round(float(v), 6) for v in self.rates[layer][ranked.model]],
                    }
                    for ranked in self.ranking(layer, seed=seed)
                ]
                for layer in self.rates
            },
        }


def require_comparable(models: Sequence[PretrainedModel], noises: Sequence[Noise]) -> None:
    """Refuse models whose change rates under these noises say nothing about each other.

    Rates are relative, so layers of different width may be compared; noise must be the same. In
    the waveform it is for all models of one sample rate, in the model's own input only for those
    that share the front end, whose units it is in; in pictures it is for all of one shape.

    Raises:
        InputError: If there is none, one is given twice, or what they take differs: its kind, front
            end or sample rate, or the shape of pictures.
    """
    names = [model.card.name for model in models]
    if not models or len(set(names)) != len(names):
        raise InputError(f"got the models {names}, expected at least one and none twice")
    first = models[0].card
    for card in (model.card for model in models[1:]):
        if card.modality != first.modality:
            raise InputError(
                f"{first.name} takes {first.modality}, {card.name} takes {card.modality}; compare "
                "models of one kind"
            )
        for level in {noise.level for noise in noises}:
            modality_of(first).require_same_input(first, card, level=level)


def layer_rates(
    model: InstrumentedModel, result: NccrResult, taps: Sequence[str], layer: str
) -> Array:
    """Return the change rates of one layer, the head's outputs included, averaged over draws.

    Args:
        model: That was measured.
        result: What ``measure_nccr`` returned for ``taps``.
        taps: Names of the tapped layers.
        layer: One of them, or ``LOGITS``.

    Returns:
        (noises,).

    Raises:
        InputError: If the logits are asked of a model without a head.
    """
    if layer == LOGITS:
        with torch.no_grad():
            clean = model.logits(model.score_embeddings(result.embedding[None]))[0]
            flat = model.score_embeddings(result.draw_embeddings.flatten(0, 1))
            noisy = model.logits(flat).reshape(*result.draw_embeddings.shape[:2], -1)
        rates = change_rate(clean, noisy)
    else:
        rates = result.changes[:, :, list(taps).index(layer)]
    averaged: Array = rates.mean(dim=1).double().numpy()
    return averaged


def measure_robustness(
    models: Sequence[PretrainedModel],
    files: Iterable[Recording],
    reader: Reader,
    *,
    noise: Noise = DEFAULT_NOISE,
    layers: Sequence[str] = DEFAULT_LAYERS,
    draws: int = 10,
    seed: int,
    progress: Callable[[Recording], None] = lambda file: None,
) -> RobustnessResult:
    """Measure the NCCR of every file on every model, each time under the same noise.

    Args:
        models: To be compared.
        files: Clean, whole. Those of one speaker are not taken for independent of each other.
        reader: How they are read.
        noise: The noise.
        layers: Module names that all models have, ``LAST_TAP`` or ``LOGITS``.
        draws: Of the noise, for each file.
        seed: With a file's content, of its noise.
        progress: Called after each file.

    Raises:
        InputError: If the models cannot be compared (``require_comparable``), or fewer than two
            files can be read.
        LayerNotFoundError: If a model has no such layer.
    """
    require_comparable(models, [noise])
    rates: dict[str, dict[str, list[float]]] = {
        layer: {model.card.name: [] for model in models} for layer in layers
    }
    measured: list[Recording] = []
    failures: list[FileError] = []
    for file in files:
        try:
            item = reader.read(file)
        except FileError as err:
            failures.append(err)
        else:
            batch, content = Batch(item.raw[None]), item.content_sha256
            for model in models:
                generator = noise_generator(seed, content)
                found = _measure(model, batch, noise, layers, draws, generator)
                for layer, rate in found.items():
                    rates[layer][model.card.name].append(rate)
            measured.append(file)
        progress(file)
    if len(measured) < 2:
        raise InputError(
            f"{len(measured)} files could be measured, {len(failures)} failed; a distribution "
            "needs at least two"
        )
    return RobustnessResult(
        noise=noise,
        draws=draws,
        files=tuple(file.id for file in measured),
        speakers=tuple(file.speaker or file.id for file in measured),
        rates={
            layer: {name: np.asarray(values) for name, values in by_model.items()}
            for layer, by_model in rates.items()
        },
        tapped={
            layer: {model.card.name: _tap_of(model, layer) for model in models} for layer in layers
        },
        failures=tuple(failures),
    )


def _measure(
    pretrained: PretrainedModel,
    item: Batch,
    noise: Noise,
    layers: Sequence[str],
    draws: int,
    generator: torch.Generator,
) -> dict[str, float]:
    own = {layer: _tap_of(pretrained, layer) for layer in layers}
    taps = tuple(dict.fromkeys(name for name in own.values() if name != LOGITS))
    # the head's outputs come of the embedding, whatever is tapped
    config = NccrConfig(taps or (_tap_of(pretrained, LAST_TAP),), (noise,), draws)
    result = measure_nccr(pretrained.model, item, config, generator=generator)
    return {
        layer: float(layer_rates(pretrained.model, result, config.layers, name)[0])
        for layer, name in own.items()
    }


def _tap_of(pretrained: PretrainedModel, layer: str) -> str:
    """Return the name that a layer has in this model."""
    if layer != LAST_TAP:
        return layer
    if not pretrained.card.default_taps:
        raise InputError(
            f"the card of {pretrained.card.name} names no default taps; name a layer of its own"
        )
    return pretrained.card.default_taps[-1]
