"""Total variance minimisation (TVM): keep some values, and fill in the rest smoothly."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.purifiers._checks import check_number, check_whole, planes_of
from nip_audio.purifiers._items import each_item
from nip_audio.purifiers.base import Level, Purifier

__all__ = ["TotalVarianceMinimisation"]

_STEP = 8**-0.5  # √8 bounds the norm of the gradient operator (Chambolle 2004)


class TotalVarianceMinimisation(Purifier):
    """Drop random values, then find the smoothest image through the kept ones (TVM).

    z minimises ½ Σ_kept (z − x)² + weight · Σ ‖∇z‖. Problem, share and weight are the defaults of
    the published code of Guo et al. (ICLR 2018).

    Deviation: the authors use split Bregman iterations in compiled code; this class uses the
    primal-dual method of Chambolle & Pock (2011, Algorithm 1), and starts without the dropped
    values. The formula in the paper has a first term that is not squared, and sums differences of
    whole rows and columns. The Adversarial Robustness Toolbox implements that one, which removes
    less of an attack, and less of the clean signal.

    Args:
        keep: Share of the values that is kept.
        weight: Weight of smoothness against fidelity, in units of the input.
        steps: Number of steps of the solver.
        bounds: Range the result is clipped to.

    Raises:
        InputError: If a setting is out of range.
    """

    level: ClassVar[Level] = "input"
    differentiable: ClassVar[bool] = False
    random: ClassVar[bool] = True

    def __init__(
        self, *, keep: float = 0.5, weight: float = 0.03, steps: int = 100, bounds: Bounds
    ) -> None:
        check_number("keep", keep, 0.05, 1.0, usual=0.5)
        check_number("weight", weight, 0.0, 10.0, usual=0.03)
        check_whole("steps", steps, 1, 10000, usual=100)
        self.keep = keep
        self.weight = weight
        self.steps = steps
        self.bounds = Bounds.of(bounds)

    @property
    def name(self) -> str:
        """Name with the share and the weight."""
        return f"TVM {self.keep:g}/{self.weight:g}"

    def settings(self) -> dict[str, Any]:
        """Return the share, the weight and the number of steps."""
        return {"name": "tvm", "keep": self.keep, "weight": self.weight, "steps": self.steps}

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Drop random values of every channel, and fill them in."""
        kept = (torch.rand(batch.x.shape, generator=generator) < self.keep).to(batch.x)
        with torch.no_grad():
            return each_item(batch, self._smoothest, kept)

    def _smoothest(self, x: Tensor, kept: Tensor) -> Tensor:
        seen, mask = planes_of(x), planes_of(kept)
        # the start must not contain the dropped values
        count = mask.sum(dim=(2, 3), keepdim=True)
        middle = (self.bounds.low + self.bounds.high) / 2
        mean = (seen * mask).sum(dim=(2, 3), keepdim=True) / count.clamp_min(1)
        z = torch.where(mask > 0, seen, torch.where(count > 0, mean, middle))
        ahead = z
        rows, columns = torch.zeros_like(z)[..., 1:, :], torch.zeros_like(z)[..., 1:]
        for _ in range(self.steps):
            rows = rows + _STEP * ahead.diff(dim=-2)
            columns = columns + _STEP * ahead.diff(dim=-1)
            rows, columns = _projected(rows, columns, self.weight)
            before = z
            z = before + _STEP * _divergence(rows, columns)
            z = torch.where(mask > 0, (z + _STEP * seen) / (1 + _STEP), z)
            ahead = 2 * z - before
        return self.bounds.clip(z.reshape(x.shape))


def _projected(rows: Tensor, columns: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Limit the vectors of differences to the next row and column to a length of ``radius``.

    The last row and the last column have no successor: there a vector has one component only.
    """
    square = pad(rows.square(), (0, 0, 0, 1)) + pad(columns.square(), (0, 1))
    factor = (radius / square.sqrt().clamp_min(1e-12)).clamp_max(1)
    return rows * factor[..., :-1, :], columns * factor[..., :-1]


def _divergence(rows: Tensor, columns: Tensor) -> Tensor:
    """Return minus the adjoint of the difference operator: (…, F, T)."""
    down, right = pad(rows, (0, 0, 1, 1)), pad(columns, (1, 1))
    return down.diff(dim=-2) + right.diff(dim=-1)
