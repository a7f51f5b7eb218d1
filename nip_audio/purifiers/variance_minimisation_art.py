"""Total variance minimisation as the Adversarial Robustness Toolbox does it."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from nip_audio.attacks._art import logging_left_alone, seeded_globals
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import MissingDependencyError
from nip_audio.purifiers._checks import check_number, check_whole, planes_of
from nip_audio.purifiers._items import each_item
from nip_audio.purifiers.base import Level, Purifier

__all__ = ["ArtVarianceMinimisation"]


class ArtVarianceMinimisation(Purifier):
    """ART's ``TotalVarMin``, after the formula of Guo et al. (ICLR 2018).

    z minimises ‖kept · (z − x)‖₂ + weight · Σ ‖differences of whole rows and columns‖₂. The first
    term is not squared, so how much is smoothed depends on the image's size. The solver starts at x
    itself: of the values it drops, what it does not get to change remains, and with a weight too
    small for the size of the image it changes nothing at all: 0.03 left those of 24 × 40 values as
    they were. ``TotalVarianceMinimisation`` does not look at what it drops.

    Deviation: ART keeps a share of 0.3 with a weight of 0.5 by default; these are the share and the
    weight of the paper's published code.

    Args:
        keep: Share of values kept.
        weight: Of smoothness against fidelity.
        steps: Of the solver, at most; 10 is ART's own.
        bounds: Range the result is clipped to.

    Raises:
        InputError: For senseless settings.
        MissingDependencyError: Without ART.
    """

    level: ClassVar[Level] = "input"
    differentiable: ClassVar[bool] = False
    random: ClassVar[bool] = True

    def __init__(
        self, *, keep: float = 0.5, weight: float = 0.03, steps: int = 10, bounds: Bounds
    ) -> None:
        """See the class."""
        check_number("keep", keep, 0.05, 1.0, usual=0.5)
        check_number("weight", weight, 0.0, 10.0, usual=0.03)
        check_whole("steps", steps, 1, 10000, usual=10)
        try:
            with logging_left_alone():
                from art.defences.preprocessor import TotalVarMin
        except ImportError as err:
            raise MissingDependencyError(
                "this purifier needs the Adversarial Robustness Toolbox; install it with: "
                "pip install 'nip-audio[attacks]'"
            ) from err
        self.keep = keep
        self.weight = weight
        self.steps = steps
        self.bounds = bounds
        self._minimise = TotalVarMin(prob=keep, lamb=weight, max_iter=steps)

    @property
    def name(self) -> str:
        """Name with share and weight."""
        return f"TVM (ART) {self.keep:g}/{self.weight:g}"

    def settings(self) -> dict[str, Any]:
        """Return share, weight and steps."""
        return {"name": "tvm-art", "keep": self.keep, "weight": self.weight, "steps": self.steps}

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Drop and fill in, in every channel."""
        with seeded_globals(generator):
            return each_item(batch, self._smoothest)

    def _smoothest(self, x: Tensor) -> Tensor:
        rows = planes_of(x).detach().double().permute(0, 2, 3, 1).cpu().numpy()
        smooth, _ = self._minimise(np.ascontiguousarray(rows))
        z = torch.from_numpy(smooth).permute(0, 3, 1, 2).reshape(x.shape)
        return self.bounds.clip(z.to(x))
