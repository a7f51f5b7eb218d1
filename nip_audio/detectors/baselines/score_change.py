"""|Δscore|: how much the named class's score changes under random noise."""

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
    """Mean |change| of the score of the class that the model names, under the noise of NCCR.

    What NCCR has to beat to earn its place: the same noise, drawn in the same order, but only the
    model's answer is looked at. Equal generators give the very noise that ``measure_nccr`` draws.

    A row has one entry a noise, averaged over the draws; the suspicion is their mean.

    Args:
        config: Of the NCCR that it stands beside. Its layers are not looked at.
    """

    source = "the plain alternative to NCCR (Shi), Sec. 3.2"

    def __init__(self, config: NccrConfig) -> None:
        """See the class."""
        self.name = "|Δscore| under noise"
        self.config = config

    @property
    def passes(self) -> float:
        """One for the item, and one a draw."""
        return 1 + len(self.config.noises) * self.config.draws

    def settings(self) -> dict[str, Any]:
        """Return the noises and draws."""
        known = self.config.to_json()
        return {"name": self.name, "noises": known["noises"], "draws": known["draws"]}

    def suspicion(self, rows: Array) -> Array:
        """Return the mean over the noises."""
        return np.asarray(rows.mean(axis=1))

    def _measure(self, model: InstrumentedModel, item: Batch, generator: torch.Generator) -> Array:
        result = measure_nccr(model, item, self.config, generator=generator)
        scores = model.score_embeddings(result.embedding[None])[0]
        named = int(scores.argmax())
        noisy = model.score_embeddings(result.draw_embeddings.flatten(0, 1))[:, named]
        changes = (noisy - scores[named]).abs().reshape(len(self.config.noises), -1).mean(dim=1)
        return np.asarray(changes.double().cpu().numpy())
