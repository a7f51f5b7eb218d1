"""|Δscore|: the change of the predicted class's score under random noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.nccr import NccrConfig, measure_nccr
from nip_audio.detectors.baselines._baseline import Baseline

__all__ = ["ScoreChange"]

Array = NDArray[np.float64]


class ScoreChange(Baseline):
    """Mean absolute change of the predicted class's score, under the noise of NCCR.

    NCCR, neuron coverage change rate, must beat this baseline to be worth its cost: the noise is
    the same and drawn in the same order, but only the model's scores are used. Equal generators
    give exactly the noise that ``measure_nccr`` draws.

    A row has one entry per noise, averaged over the draws; the suspicion is their mean.

    Args:
        config: Settings of the NCCR to compare with; its layers are not used.
    """

    source = "the plain alternative to NCCR (Shi), Sec. 3.2"

    def __init__(self, config: NccrConfig) -> None:
        self.name = "|Δscore| under noise"
        self.config = config

    @property
    def passes(self) -> float:
        """One for the item and one per draw."""
        return 1 + len(self.config.noises) * self.config.draws

    def settings(self) -> dict[str, Any]:
        """Return the noises and the number of draws."""
        known = self.config.to_json()
        return {"name": self.name, "noises": known["noises"], "draws": known["draws"]}

    def suspicion(self, rows: Array) -> Array:
        """Return the mean change over the noises."""
        return np.asarray(rows.mean(axis=1))

    def _measure(self, model: InstrumentedModel, item: Batch, generator: torch.Generator) -> Array:
        result = measure_nccr(model, item, self.config, generator=generator)
        scores = model.score_embeddings(result.embedding[None])[0]
        named = int(scores.argmax())
        noisy = model.score_embeddings(result.draw_embeddings.flatten(0, 1))[:, named]
        changes = (noisy - scores[named]).abs().reshape(len(self.config.noises), -1).mean(dim=1)
        return np.asarray(changes.double().cpu().numpy())
