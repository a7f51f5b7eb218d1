"""Attack as defence: an attacked item needs fewer attack steps to change class than a clean one."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel
from nip_audio.detectors.baselines._baseline import Baseline, require_at_least
from nip_audio.errors import InputError

__all__ = ["AttackCost"]

Array = NDArray[np.float64]

_LEAST = 0.01  # least number of steps: two classes may have equal scores from the start


class AttackCost(Baseline):
    """Number of steps of the basic iterative method (BIM) until the prediction would change.

    Source: Zhao et al., ISSTA 2021. Each step moves raw input by ``step`` along the sign of the
    gradient of the cross-entropy of the first prediction. The perturbation is limited by the bounds
    only; the number of steps is the cost, and an item whose prediction survives the cap costs
    cap + 1. A row holds the logarithm of the cost, since costs of clean items differ by factors;
    the suspicion is its negative.

    The gradient is taken of the log-odds of all other classes against the prediction. It equals
    that of the cross-entropy divided by a positive number, so that it has the same sign and does
    not vanish for a confident model.

    Deviation: the last step counts only up to the point at which the odds are even, by linear
    interpolation; this separates items with equally few whole steps at no extra cost. The paper
    counts the iterations of several attacks, and decides by a threshold or a nearest neighbour;
    here BIM is the only attack.

    Args:
        step: Size of a step, in units of raw input.
        most: Largest number of steps, the cap.

    Raises:
        InputError: If a setting is out of range.
    """

    source = "Zhao et al. (Attack as Defense), ISSTA 2021: attack cost, by BIM"

    def __init__(self, *, step: float = 2e-5, most: int = 40) -> None:
        require_at_least("most", most, 1)
        if not step > 0:
            raise InputError(f"step is {step}, expected more than 0, in units of raw input")
        self.name = "attack cost"
        self.step = step
        self.most = most

    @property
    def passes(self) -> float:
        """At most three per step, and one to check the effect of the last step."""
        return 3 * self.most + 1

    def settings(self) -> dict[str, Any]:
        """Return the size of a step and the cap."""
        return {"name": self.name, "step": self.step, "most": self.most}

    def suspicion(self, rows: Array) -> Array:
        """Return the negative logarithm of the number of steps."""
        return np.asarray(-rows[:, 0])

    def _measure(self, model: InstrumentedModel, item: Batch, generator: torch.Generator) -> Array:
        return np.log([max(self._cost(model, item), _LEAST)])

    def _cost(self, model: InstrumentedModel, item: Batch) -> float:
        """Return the number of steps, at most ``most`` + 1."""
        x, named, last = item.x.detach().clone(), -1, 0.0
        for taken in range(self.most + 1):
            with torch.enable_grad():
                x = x.requires_grad_(True)
                logits = model.logits(model.scores(item.with_x(x)))[0]
                named = int(logits.argmax()) if taken == 0 else named
                others = torch.cat([logits[:named], logits[named + 1 :]])
                lead = float((logits[named] - others.max()).detach())
                if not lead >= 0:  # NaN ends the loop too, and is refused by ``measure``
                    return taken - 1 + last / (last - lead)
                last = lead
                if taken == self.most:
                    break
                odds = others.logsumexp(dim=0) - logits[named]
                (gradient,) = torch.autograd.grad(odds, x)
            x = model.bounds.clip(x.detach() + self.step * gradient.sign())
        return self.most + 1.0
