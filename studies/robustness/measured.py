"""Measure the clips of one system under every noise, and keep the results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.audio.io import samples_sha256
from nip_audio.core.adapter import Batch
from nip_audio.core.nccr import NccrConfig, measure_nccr
from nip_audio.core.noise import Noise
from nip_audio.evaluation.robustness import DEFAULT_LAYERS, DEFAULT_NOISE, LOGITS, layer_rates
from nip_audio.evaluation.systems import EvaluatedSystem, Item
from nip_audio.screening.measure import noise_generator

Array = NDArray[np.float64]

NOISES = (
    DEFAULT_NOISE,
    Noise("gaussian", "input", 0.01),
    Noise("gaussian", "input", 0.03),
    Noise("gaussian", "input", 0.1),
    Noise("mask", "input", 0.05),
    Noise("mask", "input", 0.2),
    Noise("gaussian", "raw", 0.0005),
    Noise("gaussian", "raw", 0.002),
    Noise("gaussian", "raw", 0.008),
)
"""Noises to measure with. The default comes first; results for one noise are for this one."""

DRAWS = 10


@dataclass(frozen=True)
class Measured:
    """Measurements of one system's clips.

    Attributes:
        system: System that was measured.
        layers: Names of the layers; the logits come last, after the last tap.
        speakers: Speaker of each clip.
        right: (clips,) whether the clip without noise is classified correctly.
        rates: (clips, noises, layers) NCCR.
        embeddings: (clips, D) embeddings without noise.
        noisy: (clips, draws, D) embeddings under the default noise.
    """

    system: EvaluatedSystem
    layers: tuple[str, ...]
    speakers: tuple[str, ...]
    right: NDArray[np.bool_]
    rates: Array
    embeddings: Array
    noisy: Array

    @property
    def name(self) -> str:
        """Name of the system in the configuration."""
        return self.system.name

    def logits(self, embeddings: Array) -> Array:
        """Compute logits (..., C) from embeddings (..., D)."""
        model = self.system.model
        flat = torch.from_numpy(embeddings.reshape(-1, embeddings.shape[-1])).float()
        with torch.no_grad():
            scored = model.logits(model.score_embeddings(flat)).double().numpy()
        return np.asarray(scored.reshape(*embeddings.shape[:-1], -1))


def measure_system(
    system: EvaluatedSystem,
    clips: int,
    cache: Path,
    *,
    seed: int,
    progress: Callable[[int], None],
) -> Measured:
    """Measure the first clips of a system, or read kept measurements.

    Args:
        system: System to measure.
        clips: Number of clips, taken from the start of their random order.
        cache: Folder where results are kept, by everything that they depend on.
        seed: Seed of the noise, together with a clip's content.
        progress: Called with the number of clips done.
    """
    items = system.items[:clips]
    taps = system.pretrained.card.default_taps
    config = NccrConfig(tuple(taps), NOISES, DRAWS)
    depends = [system.identity, seed, config.to_json(), [item.id for item in items]]
    key = hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:16]
    file = cache / f"{system.name}-{key}.npz"
    if not file.exists():
        arrays = _measure(system, items, config, seed=seed, progress=progress)
        partial = file.with_suffix(".part")
        with partial.open("wb") as out:
            np.savez(out, allow_pickle=False, **arrays)
        partial.rename(file)
    with np.load(file, allow_pickle=False) as kept:
        arrays = {name: kept[name] for name in ("rates", "embeddings", "noisy")}
    right = system.scores(items).argmax(dim=1) == system.labels_of(items)
    return Measured(
        system=system,
        layers=(*taps, LOGITS),
        speakers=tuple(item.speaker for item in items),
        right=right.numpy(),
        **arrays,
    )


def clip_rates(
    system: EvaluatedSystem, clips: Sequence[torch.Tensor], *, seed: int
) -> dict[str, Array]:
    """Measure NCCR at the last tap and the logits under the default noise, (clips,) each."""
    (tap,) = system.pretrained.card.default_taps[-1:]
    config = NccrConfig((tap,), (DEFAULT_NOISE,), DRAWS)
    rates: dict[str, list[float]] = {layer: [] for layer in DEFAULT_LAYERS}
    for clip in clips:
        generator = noise_generator(seed, samples_sha256(clip))
        result = measure_nccr(system.model, Batch(clip[None]), config, generator=generator)
        for layer, name in zip(DEFAULT_LAYERS, (tap, LOGITS), strict=True):
            rates[layer].append(float(layer_rates(system.model, result, (tap,), name)[0]))
    return {layer: np.asarray(values) for layer, values in rates.items()}


def _measure(
    system: EvaluatedSystem,
    items: Sequence[Item],
    config: NccrConfig,
    *,
    seed: int,
    progress: Callable[[int], None],
) -> dict[str, Array]:
    rates, embeddings, noisy = [], [], []
    for done, item in enumerate(items):
        # the crop's id is used, so that two crops of one recording have different noise
        generator = noise_generator(seed, item.id)
        result = measure_nccr(system.model, Batch(item.samples[None]), config, generator=generator)
        layers = (*config.layers, LOGITS)
        by_layer = [layer_rates(system.model, result, config.layers, n) for n in layers]
        rates.append(np.stack(by_layer, axis=1))
        embeddings.append(result.embedding.double().numpy())
        noisy.append(result.draw_embeddings[0].double().numpy())
        progress(done + 1)
    return {
        "rates": np.stack(rates),
        "embeddings": np.stack(embeddings),
        "noisy": np.stack(noisy),
    }
