"""The anti-adversary layer: raise the model's confidence in its prediction before it decides."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.influence import require_gradient
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError
from nip_audio.purifiers._checks import check_number, check_whole
from nip_audio.purifiers.base import Level, Purifier

__all__ = ["AntiAdversary"]


class AntiAdversary(Purifier):
    """Step against the gradient of the predicted class's loss (Alfarra et al., AAAI 2022).

    γ ← γ − step · sign(∇_γ CE(f(x + γ), argmax f(x))), repeated from γ = 0. The model becomes more
    confident of its prediction, and an attacker who relies on many queries or on gradients gets
    less informative ones. The prediction for an input that is already adversarial is confirmed like
    any other.

    The sign has no gradient, so the gradient of x + γ(x) is exactly that of the identity wherever
    nothing is clipped: an attacker who follows it does the same as with backward pass
    differentiable approximation (BPDA).

    Deviation: the result is clipped to the bounds, which the authors' code does not do. The default
    step is 4/255; the authors' CIFAR-10 example takes two steps of 0.15.

    Args:
        model: Model with a head whose confidence is raised; the head may differ from that of the
            defended model. The model is not modified.
        steps: Number of steps.
        step: Length of one step, in units of the model's input.
        bounds: Range the result is clipped to.

    Raises:
        InputError: If the model has no head, or a setting is out of range.
    """

    level: ClassVar[Level] = "input"
    differentiable: ClassVar[bool] = True
    random: ClassVar[bool] = False

    def __init__(
        self,
        *,
        model: InstrumentedModel,
        steps: int = 2,
        step: float = 4 / 255,
        bounds: Bounds,
    ) -> None:
        check_whole("steps", steps, 1, 100, usual=2)
        check_number("step", step, 1e-6, 0.5, usual=round(4 / 255, 4))
        if model.head is None:
            raise InputError(
                "this model only embeds, expected one that predicts classes; enrol speakers and "
                "use with_head(CosineHead(voices))"
            )
        self.model = model
        self.steps = steps
        self.step = step
        self.bounds = Bounds.of(bounds)

    @property
    def name(self) -> str:
        """Name with the number and length of steps."""
        return f"anti-adversary {self.steps}×{self.step:.3g}"

    def settings(self) -> dict[str, Any]:
        """Return the number and length of steps."""
        return {"name": "anti-adversary", "steps": self.steps, "step": self.step}

    def purify(self, batch: Batch, *, generator: torch.Generator) -> Batch:
        """Add the anti-adversarial perturbation."""
        modes = {module: module.training for module in self.model.modules()}
        try:
            self.model.eval()
            with torch.enable_grad():
                change = self._change(batch)
        finally:
            for module, mode in modes.items():
                module.training = mode
        return batch.with_x(batch.with_x(self.bounds.clip(batch.x + change)).masked())

    def _change(self, batch: Batch) -> Tensor:
        clean = batch.masked().detach()
        change = torch.zeros_like(clean)
        named = None
        for _ in range(self.steps):
            x = (clean + change).requires_grad_(True)
            inside = batch.with_x(batch.with_x(x).masked())
            logits = self.model.logits(self.model.score_embeddings(self.model.embed_input(inside)))
            named = logits.argmax(dim=1).detach() if named is None else named
            loss = cross_entropy(logits, named, reduction="sum")
            require_gradient(loss)
            (gradient,) = torch.autograd.grad(loss, x)
            change = self.bounds.clip(clean + change - self.step * gradient.sign()) - clean
        return change
