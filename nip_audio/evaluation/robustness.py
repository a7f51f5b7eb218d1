"""Rank models by NCCR: measure how much each reacts to the same noise on the same files.

NCCR is the neuron coverage change rate. Source: "Neuron Coverage Change Rate" (Shi), Sec. 4, which
measures every item of one clean test set on several models, with the l2 norm and ten draws of
noise, and takes the model that changes least as the most robust. No attack is needed, and none is
measured. ``nccr_ranks.agreement`` and docs/results/robustness.md compare the rank with the one by
accuracy under attack.
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
"""Last of a card's default taps: the pooled or embedding layer, which every architecture has."""
LOGITS = "logits"
"""Outputs of a model's head."""

DEFAULT_LAYERS = (LAST_TAP, LOGITS)
DEFAULT_NOISE = Noise("uniform", "input", 8 / 255)
"""Noise of |ε| < 8/255 on the model's input, as in the paper. Deviation: the paper uses Gaussian
noise within that range, of a standard deviation that it does not state; here it is uniform."""


@dataclass(frozen=True)
class RobustnessResult:
    """NCCR of the same files on several models.

    Attributes:
        noise: Noise that the models were measured with.
        draws: Draws of noise per file.
        files: Ids of the files that could be measured.
        speakers: Speaker of each file; a file without one, or an image, counts as a speaker of its
            own.
        rates: NCCR, (files,), by layer as asked for and by model name.
        tapped: Name that a layer has in the model, by layer as asked for and by model name.
        failures: Errors of the files that could not be read.
    """

    noise: Noise
    draws: int
    files: tuple[str, ...]
    speakers: tuple[str, ...]
    rates: Mapping[str, Mapping[str, Array]]
    tapped: Mapping[str, Mapping[str, str]]
    failures: tuple[FileError, ...]

    def ranking(self, layer: str, *, seed: int) -> list[Ranked]:
        """Rank the models by the NCCR of one layer; see ``rank_models``."""
        return rank_models(self.rates[layer], self.speakers, seed=seed)

    def to_json(self, *, seed: int) -> dict[str, Any]:
        """Return rounded JSON values; ``seed`` seeds the bootstrap."""
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
    """Refuse models whose NCCR under these noises cannot be compared.

    NCCR is relative, so that layers of different width may be compared, but the noise must be the
    same. Noise in the waveform is the same for all models of one sample rate; noise in the model's
    input only for models with the same front end; noise in images for models of one image shape.

    Raises:
        InputError: If there is no model, one is given twice, or modality, front end, sample rate or
            image shape differ.
    """
    names = [model.card.name for model in models]
    if not models or len(set(names)) != len(names):
        raise InputError(f"got the models {names}, expected at least one and none twice")
    first = models[0].card
    for card in (model.card for model in models[1:]):
        if card.modality != first.modality:
            raise InputError(
                f"{first.name} takes {first.modality}, {card.name} takes {card.modality}; compare "
                "models of one modality"
            )
        for level in {noise.level for noise in noises}:
            modality_of(first).require_same_input(first, card, level=level)


def layer_rates(
    model: InstrumentedModel, result: NccrResult, taps: Sequence[str], layer: str
) -> Array:
    """Return the NCCR of one layer, or of the head's outputs, averaged over draws.

    Args:
        model: Model that was measured.
        result: Result of ``measure_nccr`` for ``taps``.
        taps: Names of the tapped layers.
        layer: One of the taps, or ``LOGITS``.

    Returns:
        (noises,) one rate per noise.

    Raises:
        InputError: If ``layer`` is ``LOGITS`` and the model has no head.
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
    layers: Sequence[str] | None = None,
    draws: int = 10,
    seed: int,
    progress: Callable[[Recording], None] = lambda file: None,
) -> RobustnessResult:
    """Measure the NCCR of every file on every model, under the same noise for all models.

    Args:
        models: Models to compare.
        files: Clean files, each measured whole. Intervals treat files of one speaker as dependent,
            but not the images of one class.
        reader: Reader of the files.
        noise: Noise to measure with.
        layers: Module names that all models have, ``LAST_TAP`` or ``LOGITS``; None is both, or
            the first alone if a model only embeds.
        draws: Draws of noise per file.
        seed: Seed of the noise, together with each file's content.
        progress: Called after each file.

    Raises:
        InputError: If the models cannot be compared (``require_comparable``), or fewer than two
            files can be read.
        LayerNotFoundError: If a model has no such layer.
    """
    require_comparable(models, [noise])
    if layers is None:
        named = all(model.model.head is not None for model in models)
        layers = DEFAULT_LAYERS if named else (LAST_TAP,)
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
            f"{len(measured)} files could be measured and {len(failures)} failed, expected at "
            "least two that can be measured; add files"
        )
    grouped = modality_of(models[0].card).folder_is_group
    return RobustnessResult(
        noise=noise,
        draws=draws,
        files=tuple(file.id for file in measured),
        speakers=tuple((file.speaker if grouped else None) or file.id for file in measured),
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
    # the head's outputs are computed from the embedding, whatever is tapped
    config = NccrConfig(taps or (_tap_of(pretrained, LAST_TAP),), (noise,), draws)
    result = measure_nccr(pretrained.model, item, config, generator=generator)
    return {
        layer: float(layer_rates(pretrained.model, result, config.layers, name)[0])
        for layer, name in own.items()
    }


def _tap_of(pretrained: PretrainedModel, layer: str) -> str:
    """Return the module name of a layer in this model."""
    if layer != LAST_TAP:
        return layer
    if not pretrained.card.default_taps:
        raise InputError(
            f"the card of {pretrained.card.name} names no default taps; name one of the model's "
            "layers"
        )
    return pretrained.card.default_taps[-1]
