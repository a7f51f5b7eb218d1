"""Total variance minimisation (TVM) as implemented in the Adversarial Robustness Toolbox (ART)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from nip_audio.attacks._art import preserved_logging, seeded_globals
from nip_audio.core.adapter import Batch, Bounds
from nip_audio.errors import MissingDependencyError
from nip_audio.purifiers._checks import check_number, check_whole, planes_of
from nip_audio.purifiers._items import each_item
from nip_audio.purifiers.base import Level, Purifier

__all__ = ["ArtVarianceMinimisation"]


class ArtVarianceMinimisation(Purifier):
    """ART's ``TotalVarMin``, after the formula of Guo et al. (ICLR 2018).

    z minimises ‖kept · (z − x)‖₂ + weight · Σ ‖differences of whole rows and columns‖₂. The first
    term is not squared, so the strength of the smoothing depends on the size of the image. The
    solver starts at x itself: dropped values that it does not change remain. With a weight too
    small for the size of the image it changes nothing at all, as 0.03 did for 24 × 40 values.
    ``TotalVarianceMinimisation`` never uses the values it drops.

    Deviation: ART's defaults are a share of 0.3 and a weight of 0.5; the defaults here are those of
    the paper's published code.

    Args:
        keep: Share of the values that is kept.
        weight: Weight of smoothness against fidelity.
        steps: Largest number of steps of the solver; ART's default is 10.
        bounds: Range the result is clipped to.

    Raises:
        InputError: If a setting is out of range.
        MissingDependencyError: If the Adversarial Robustness Toolbox is not installed.
    """

    level: ClassVar[Level] = "input"
    differentiable: ClassVar[bool] = False
    random: ClassVar[bool] = True

    def __init__(
        self, *, keep: float = 0.5, weight: float = 0.03, steps: int = 10, bounds: Bounds
    ) -> None:
        check_number("keep", keep, 0.05, 1.0, usual=0.5)
        check_number("weight", weight, 0.0, 10.0, usual=0.03)
        check_whole("steps", steps, 1, 10000, usual=10)
        try:
            with preserved_logging():
                from art.defences.preprocessor import TotalVarMin
        except ImportError as err:
            raise MissingDependencyError(
                "this purifier needs the Adversarial Robustness Toolbox", extra="attacks"
            ) from err
        self.keep = keep
        self.weight = weight
        self.steps = steps
        self.bounds = bounds
        self._minimise = TotalVarMin(prob=keep, lamb=weight, max_iter=steps)

    @property
    def name(self) -> str:
        """Name with the share and the weight."""
        return f"TVM (ART) {self.keep:g}/{self.weight:g}"

    def settings(self) -> dict[str, Any]:
        """Return the share, the weight and the number of steps."""
        return {"name": "tvm-art", "keep": self.keep, "weight": self.weight, "steps": self.steps}

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Drop random values of every channel, and fill them in."""
        with seeded_globals(generator):
            return each_item(batch, self._smoothest)

    def _smoothest(self, x: Tensor) -> Tensor:
        rows = planes_of(x).detach().double().permute(0, 2, 3, 1).cpu().numpy()
        smooth, _ = self._minimise(np.ascontiguousarray(rows))
        z = torch.from_numpy(smooth).permute(0, 3, 1, 2).reshape(x.shape)
        return self.bounds.clip(z.to(x))
