"""A model and its defence combined into one model, which is what an adaptive attacker attacks."""

from __future__ import annotations

from typing import Generic, Self, TypeVar

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel, OutputKind
from nip_audio.errors import InputError
from nip_audio.purifiers.base import Defence, Purifier

__all__ = ["ModelWithDefence", "DefendedModel"]

D = TypeVar("D", bound=Defence)


class ModelWithDefence(InstrumentedModel, Generic[D]):
    """A model with a defence, which is kept when the head or the input level is changed.

    Args:
        model: Model to defend; its parts are shared, not copied.
        defence: Defence of the model.
        generator: Source of the defence's randomness. Attacker and evaluation must use different
            generators: no attacker knows the defender's draws.
    """

    def __init__(self, model: InstrumentedModel, defence: D, *, generator: torch.Generator) -> None:
        super().__init__(model.network, **model.parts())
        self.model = model
        self.defence = defence
        self.generator = generator
        self.train(model.training)

    def to_input(self, batch: Batch) -> Batch:
        """Turn raw input into model input."""
        return self.model.to_input(batch)

    def with_head(
        self,
        head: nn.Module,
        *,
        labels: tuple[str, ...] = (),
        output_kind: OutputKind = "cosine",
        scale: float | None = None,
    ) -> Self:
        """Return the same model and defence with another head."""
        model = self.model.with_head(head, labels=labels, output_kind=output_kind, scale=scale)
        return type(self)(model, self.defence, generator=self.generator)

    def without_front_end(self) -> Self:
        """Return the defended model without its front end, taking model input."""
        model = self.model.without_front_end()
        return type(self)(model, self.defence, generator=self.generator)


class DefendedModel(ModelWithDefence[Purifier]):
    """A model whose input is purified first; differentiable end to end.

    Every attack runs against it unchanged. If the purifier has no gradient, the backward pass
    treats it as the identity (backward pass differentiable approximation, BPDA; Athalye et al.
    2018). If it is random, every call draws anew, so that averaging over calls is expectation over
    transformation (EOT). The arguments are those of ``ModelWithDefence``.
    """

    def to_input(self, batch: Batch) -> Batch:
        """Turn raw input into purified model input."""
        if self.defence.level == "raw":
            return self.model.to_input(self._purify(self.defence, batch))
        if self.defence.before is not None and self.front_end is not None:
            batch = self._purify(self.defence.before, batch)
        return self._purify(self.defence, self.model.to_input(batch))

    def without_front_end(self) -> Self:
        """Return the defended model without its front end, taking model input.

        Raises:
            InputError: If the purifier, or the one it applies first, works on raw input: the
                result would have no defence, or a different one.
        """
        if self.defence.works_on_raw and self.front_end is not None:
            raise InputError(
                f"{self.defence.name} works on raw input, which an attack at level 'input' "
                "bypasses; attack at level 'raw'"
            )
        return super().without_front_end()

    def _purify(self, purifier: Purifier, batch: Batch) -> Batch:
        if purifier.differentiable:
            return purifier.purify(batch, generator=self.generator)
        with torch.no_grad():
            purified: Tensor = purifier.purify(batch, generator=self.generator).x
        x: Tensor = _StraightThrough.apply(batch.x, purified)
        return batch.with_x(x)


class _StraightThrough(torch.autograd.Function):
    """Pass the purified values forward, and the gradient backward unchanged."""

    @staticmethod
    def forward(ctx: object, x: Tensor, purified: Tensor) -> Tensor:
        return purified.view_as(purified)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
