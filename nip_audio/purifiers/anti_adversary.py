"""The anti-adversary layer: make the model surer before it decides."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError
from nip_audio.purifiers._checks import check_number, check_whole
from nip_audio.purifiers.base import Level, Purifier

__all__ = ["AntiAdversary"]


class AntiAdversary(Purifier):
    """Step against the gradient of the predicted class's loss (Alfarra et al., AAAI 2022).

    γ ← γ − step · sign(∇_γ CE(f(x + γ), argmax f(x))), some times from γ = 0: the model becomes
    surer of its answer, and an attacker who needs many queries or gradients gets worse ones. The
    answer to an example that is adversarial already is confirmed like any other.

    The sign has no gradient, so that of the whole, x + γ(x), is exactly the identity's where
    nothing is clipped: an attacker who follows it does what BPDA would.

    Deviation: the result is clipped to the bounds, which the authors' code does not do; the default
    step is 4/255, where their example on CIFAR-10 takes two of 0.15.

    Args:
        model: Whose answer is made surer, with a head; its head need not be the defended one's.
            Nothing in it changes.
        steps: Steps.
        step: Length of one, in units of the model's input.
        bounds: Range the result is clipped to.

    Raises:
        InputError: If the model only embeds, or for senseless settings.
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
        """See the class."""
        check_whole("steps", steps, 1, 100, usual=2)
        check_number("step", step, 1e-6, 0.5, usual=round(4 / 255, 4))
        if model.head is None:
            raise InputError(
                "this model only embeds, expected one that names classes; enrol speakers and use "
                "with_head(CosineHead(voices))"
            )
        self.model = model
        self.steps = steps
        self.step = step
        self.bounds = bounds

    @property
    def name(self) -> str:
        """Name with the steps."""
        return f"anti-adversary {self.steps}×{self.step:.3g}"

    def settings(self) -> dict[str, Any]:
        """Return the steps."""
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
            (gradient,) = torch.autograd.grad(loss, x)
            change = self.bounds.clip(clean + change - self.step * gradient.sign()) - clean
        return change
