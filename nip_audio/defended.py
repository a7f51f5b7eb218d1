"""A model and its defence as one model: what an adaptive attacker attacks."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch
from nip_audio.core.model import InstrumentedModel, OutputKind
from nip_audio.errors import InputError
from nip_audio.purifiers.base import Defence, Purifier
from nip_audio.purifiers.layer_defence import LayerDefence, LayerDefendedModel

__all__ = ["DefendedModel", "defend", "works_on_raw"]


def defend(
    model: InstrumentedModel, defence: Defence, *, generator: torch.Generator
) -> InstrumentedModel:
    """Return the model with a defence before its network, or inside it.

    Args:
        model: What is defended; its parts are shared, not copied.
        defence: A ``Purifier`` or a ``LayerDefence``.
        generator: Source of the defence's randomness.

    Raises:
        InputError: If the defence is of another kind, or does not fit the model.
        LayerNotFoundError: If a layer that it changes is no module of the network.
    """
    if isinstance(defence, LayerDefence):
        return LayerDefendedModel(model, defence, generator=generator)
    if isinstance(defence, Purifier):
        return DefendedModel(model, defence, generator=generator)
    raise InputError(
        f"defence is a {type(defence).__name__}, expected a Purifier or a LayerDefence; make one "
        "by make_defence"
    )


class DefendedModel(InstrumentedModel):
    """A model whose input is purified first; differentiable end to end.

    Every attack runs against it unchanged. Where the purifier has no gradient, the backward pass
    takes it for the identity (BPDA, Athalye et al. 2018); where it is random, every call draws
    anew, so an attacker who averages over calls does EOT.

    Args:
        model: What is defended; its parts are shared, not copied.
        purifier: Its defence.
        generator: Source of the purifier's randomness. Attacker and evaluation must have different
            ones: nobody knows the defender's draws.
    """

    def __init__(
        self, model: InstrumentedModel, purifier: Purifier, *, generator: torch.Generator
    ) -> None:
        """See the class."""
        super().__init__(model.network, **model.parts())
        self.model = model
        self.purifier = purifier
        self.generator = generator
        self.train(model.training)

    def to_input(self, batch: Batch) -> Batch:
        """Turn raw input into purified model input."""
        if self.purifier.level == "raw":
            return self.model.to_input(self._purify(self.purifier, batch))
        if self.purifier.before is not None and self.front_end is not None:
            batch = self._purify(self.purifier.before, batch)
        return self._purify(self.purifier, self.model.to_input(batch))

    def with_head(
        self,
        head: nn.Module,
        *,
        labels: tuple[str, ...] = (),
        output_kind: OutputKind = "cosine",
        scale: float | None = None,
    ) -> Self:
        """Return the same defence in front of the model with another head."""
        model = self.model.with_head(head, labels=labels, output_kind=output_kind, scale=scale)
        return type(self)(model, self.purifier, generator=self.generator)

    def without_front_end(self) -> Self:
        """Return the defended model behind the front end.

        Raises:
            InputError: If the purifier, or what it was made to stand behind, works before it:
                nothing, or another defence, would be left.
        """
        if works_on_raw(self.purifier) and self.front_end is not None:
            raise InputError(
                f"{self.purifier.name} works on raw input, which whoever attacks at level 'input' "
                "goes round; attack at level 'raw'"
            )
        model = self.model.without_front_end()
        return type(self)(model, self.purifier, generator=self.generator)

    def _purify(self, purifier: Purifier, batch: Batch) -> Batch:
        if purifier.differentiable:
            return purifier.purify(batch, generator=self.generator)
        with torch.no_grad():
            purified: Tensor = purifier.purify(batch, generator=self.generator).x
        x: Tensor = _StraightThrough.apply(batch.x, purified)  # type: ignore[no-untyped-call]
        return batch.with_x(x)


def works_on_raw(purifier: Purifier) -> bool:
    """Tell whether raw input is changed, so that whoever attacks behind it goes round."""
    return purifier.level == "raw" or purifier.before is not None


class _StraightThrough(torch.autograd.Function):
    """The purified values forward, the identity backward."""

    @staticmethod
    def forward(ctx: object, x: Tensor, purified: Tensor) -> Tensor:
        return purified.view_as(purified)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None
