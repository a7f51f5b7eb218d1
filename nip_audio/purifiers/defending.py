"""Combine a model and its defence into one model, which is what an adaptive attacker attacks."""

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
    """Return a model that applies a defence before its network or inside it.

    Args:
        model: Model to defend; its parts are shared, not copied.
        defence: A ``Purifier``, a ``GatedPurifier`` or a ``LayerDefence``.
        generator: Random generator of the defence.

    Raises:
        InputError: If the defence is of another type, or does not fit the model.
        LayerNotFoundError: If the defence changes a layer that the network does not have.
    """
    if isinstance(defence, LayerDefence):
        return LayerDefendedModel(model, defence, generator=generator)
    if isinstance(defence, GatedPurifier):
        return GatedModel(model, defence, generator=generator)
    if isinstance(defence, Purifier):
        return DefendedModel(model, defence, generator=generator)
    raise InputError(
        f"defence is a {type(defence).__name__}, expected a Purifier, a GatedPurifier or a "
        "LayerDefence; create one with make_defence"
    )
