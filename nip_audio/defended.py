"""A model and its defence as one model: what an adaptive attacker attacks."""

from __future__ import annotations

import torch

from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError
from nip_audio.purifiers.base import Defence, Purifier
from nip_audio.purifiers.defended_model import DefendedModel
from nip_audio.purifiers.gated import GatedModel, GatedPurifier
from nip_audio.purifiers.layer_defence import LayerDefence, LayerDefendedModel

__all__ = ["DefendedModel", "defend"]


def defend(
    model: InstrumentedModel, defence: Defence, *, generator: torch.Generator
) -> InstrumentedModel:
    """Return the model with a defence before its network, or inside it.

    Args:
        model: What is defended; its parts are shared, not copied.
        defence: A ``Purifier``, gated or not, or a ``LayerDefence``.
        generator: Source of the defence's randomness.

    Raises:
        InputError: If the defence is of another kind, or does not fit the model.
        LayerNotFoundError: If a layer that it changes is no module of the network.
    """
    if isinstance(defence, LayerDefence):
        return LayerDefendedModel(model, defence, generator=generator)
    if isinstance(defence, GatedPurifier):
        return GatedModel(model, defence, generator=generator)
    if isinstance(defence, Purifier):
        return DefendedModel(model, defence, generator=generator)
    raise InputError(
        f"defence is a {type(defence).__name__}, expected a Purifier, a GatedPurifier or a "
        "LayerDefence; make one by make_defence"
    )
