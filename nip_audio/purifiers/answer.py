"""Measure how a purifier answers an input: the inverse perturbation as a witness of an attack.

A guided purifier was taught to undo attacks. On clean input, and on input with harmless noise, it
leaves the embedding where it is; on an attacked one it moves the embedding back. How far it moves
it, and how much it changes to do so, tell an attack from noise, which the change of neurons under
noise alone does not. This combines NIP (neuron-level inverse perturbation) and NCCR (neuron
coverage change rate); it is ours and of neither paper.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError
from nip_audio.purifiers.base import Purifier

__all__ = ["ANSWER_NAMES", "NOISES", "measure_answers"]

NOISES = (0.001, 0.004)
"""Rms of the white noise of two copies of the waveform, whose answers are measured as well."""

ANSWER_NAMES = (
    "distance to the purified embedding",
    "mean change of the input",
    "spread of the change",
    *(
        f"{what}, noise {rms:g}"
        for rms in NOISES
        for what in ("distance of the purified copy", "distance of the copy")
    ),
    "mean level",
    "spread of levels",
    "floor of levels",
    "highest level",
)
"""Names of the numbers, in order."""


@torch.no_grad()
def measure_answers(
    model: InstrumentedModel, purifier: Purifier, batch: Batch, *, generator: torch.Generator
) -> NDArray[np.float64]:
    """Measure how a purifier of model input answers each item.

    The model embeds the batch and two noisy copies, each as it is and purified: six passes of the
    model and three of the purifier.

    Args:
        model: Model in evaluation mode.
        purifier: Purifier of the model's input, such as ``GuidedNip``.
        batch: (B, N) waveforms of one length.
        generator: Random generator of the noise; equal generators give equal results.

    Returns:
        (B, 11) finite numbers, named by ``ANSWER_NAMES``.

    Raises:
        InputError: If the purifier works on raw input, or the batch is padded.
    """
    if purifier.level != "input" or batch.lengths is not None:
        raise InputError(
            f"{purifier.name} works on {purifier.level} and the batch "
            f"{'is' if batch.lengths is not None else 'is not'} padded, expected a purifier of the "
            "model's input and items of one length; measure items one by one"
        )
    x = model.to_input(batch)
    purified = purifier.purify(x, generator=generator)
    change = (purified.x - x.x).flatten(1)
    embedding = model.embed_input(x)
    after = model.embed_input(purified)
    columns = [_distance(embedding, after), change.abs().mean(dim=1), change.std(dim=1)]
    for rms in NOISES:
        noise = torch.randn(batch.x.shape, generator=generator).to(batch.x)
        noisy = model.to_input(batch.with_x(model.bounds.clip(batch.x + rms * noise)))
        copy = model.embed_input(noisy)
        undone = model.embed_input(purifier.purify(noisy, generator=generator))
        columns += [_distance(copy, undone), _distance(embedding, copy)]
    levels = x.x.flatten(1)
    columns += [
        levels.mean(dim=1),
        levels.std(dim=1),
        levels.quantile(0.05, dim=1),
        levels.amax(dim=1),
    ]
    return np.asarray(torch.stack(columns, dim=1).double().cpu().numpy())


def _distance(a: Tensor, b: Tensor) -> Tensor:
    return 1 - torch.cosine_similarity(a, b, dim=1)
