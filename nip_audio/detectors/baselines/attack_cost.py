"""Attack as defence: an attacked item gives way to another attack sooner than a clean one."""

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

_LEAST = 0.01  # steps: two classes may be equally good from the start


class AttackCost(Baseline):
    """Steps of BIM until the model would name another class (Zhao et al., ISSTA 2021).

    Each step moves raw input by ``step`` along the sign of the gradient of the cross-entropy of the
    class named first. There is no ball to stay in besides the bounds: the count is the cost. What
    has not given way within the cap costs cap + 1. A row has the logarithm of the cost, since costs
    of clean items differ by factors; the suspicion is minus that.

    The gradient is that of the log-odds of all other classes against the named one, which is the
    cross-entropy's divided by a positive number, so that it has the same sign and does not vanish
    where the model is sure.

    Deviation: of the last step only the part counts after which the odds are even, taken as linear
    in between; where whole steps are few, that tells items apart that the count does not, at no
    cost. The paper counts several attacks' iterations and has a threshold or a nearest neighbour
    decide on them; here it is BIM's alone.

    Args:
        step: Size of a step, in units of raw input.
        most: The cap.

    Raises:
        InputError: If a setting makes no sense.
    """

    source = "Zhao et al. (Attack as Defense), ISSTA 2021: attack cost, by BIM"

    def __init__(self, *, step: float = 2e-5, most: int = 40) -> None:
        """See the class."""
        require_at_least("most", most, 1)
        if not step > 0:
            raise InputError(f"step is {step}, expected more than 0, in units of raw input")
        self.name = "attack cost"
        self.step = step
        self.most = most

    @property
    def passes(self) -> float:
        """At most three a step, and one to see whether the last one has changed anything."""
        return 3 * self.most + 1

    def settings(self) -> dict[str, Any]:
        """Return step and cap."""
        return {"name": self.name, "step": self.step, "most": self.most}

    def suspicion(self, rows: Array) -> Array:
        """Return minus the logarithm of the steps."""
        return np.asarray(-rows[:, 0])

    def _measure(self, model: InstrumentedModel, item: Batch, generator: torch.Generator) -> Array:
        return np.log([max(self._cost(model, item), _LEAST)])

    def _cost(self, model: InstrumentedModel, item: Batch) -> float:
        """Return the steps, at most ``most`` + 1."""
        x, named, last = item.x.detach().clone(), -1, 0.0
        for taken in range(self.most + 1):
            with torch.enable_grad():
                x = x.requires_grad_(True)
                logits = model.logits(model.scores(item.with_x(x)))[0]
                named = int(logits.argmax()) if taken == 0 else named
                others = torch.cat([logits[:named], logits[named + 1 :]])
                lead = float((logits[named] - others.max()).detach())
                if not lead >= 0:  # what is no number stays none, and is refused
                    return taken - 1 + last / (last - lead)
                last = lead
                if taken == self.most:
                    break
                odds = others.logsumexp(dim=0) - logits[named]
                (gradient,) = torch.autograd.grad(odds, x)
            x = model.bounds.clip(x.detach() + self.step * gradient.sign())
        return self.most + 1.0
