"""Add a proactive defence to the training step of a speaker model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nip_audio.core.taps import find_layers, tap_layers
from nip_audio.errors import InputError
from nip_audio.models.channel_suppression import ChannelSuppression
from nip_audio.models.denoising import DenoisingBlock
from nip_audio.training.neuron_stabilising import stabilising_loss

__all__ = ["DefenceTraining", "Stabilising", "Suppressing", "defence_training"]

Embed = Callable[[Tensor], Tensor]
"""Embeds waveforms (B, N) as (B, D) with the network in its current state."""


class DefenceTraining:
    """A training step without a proactive defence, or with one that only changes the network."""

    def __call__(
        self, embed: Embed, wavs: Tensor, benign: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Embed a batch.

        Args:
            embed: Function that embeds waveforms with the network.
            wavs: (B, N) crops, of which the first A are adversarial.
            benign: (A, N) crops that the adversarial ones were made from.
            labels: (B,) classes.

        Returns:
            (B, D) embeddings, and a scalar to add to the loss.
        """
        return embed(wavs), wavs.new_zeros(())


class Suppressing(DefenceTraining):
    """Channel activation suppressing (CAS): channel weights of the true class, auxiliary losses.

    Bai et al., ICLR 2021, Sec. 3: the loss is CE(p, y) + β/S · Σ_s CE(p_s, y) over the S modules.

    Deviation: the recipe makes the adversarial crops against CE(p, y) alone and, as at test time,
    with the classes that the modules predict; the authors' training attack maximises the sum.

    Args:
        network: Network with at least one ``ChannelSuppression``.
        weight: Weight β of the auxiliary losses; the paper uses 2.

    Raises:
        InputError: If the network has no ``ChannelSuppression``.
    """

    def __init__(self, network: nn.Module, *, weight: float = 2.0) -> None:
        """Find the suppression modules of the network."""
        self.network = network
        self.weight = weight
        self.modules = {
            name: module
            for name, module in network.named_modules()
            if isinstance(module, ChannelSuppression)
        }
        if not self.modules:
            raise InputError(
                f"{type(network).__name__} has no ChannelSuppression, which cas needs; pass "
                "defence: cas to the network in the YAML"
            )

    def __call__(
        self, embed: Embed, wavs: Tensor, benign: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Embed a batch with the channel weights of the true classes; see ``DefenceTraining``."""
        classifiers = [f"{name}.classifier" for name in self.modules]
        with ExitStack() as told, tap_layers(self.network, classifiers) as tap:
            for module in self.modules.values():
                told.enter_context(module.given_labels(labels))
            embeddings = embed(wavs)
        losses = [cross_entropy(tap[name], labels) for name in classifiers]
        return embeddings, self.weight * torch.stack(losses).mean()


class Stabilising(DefenceTraining):
    """Sensitive neurons stabilising (SNS): penalise how far attacks move sensitive neurons.

    See ``stabilising_loss``. Benign and adversarial versions go through the network together, so
    that batch normalisation treats them alike.

    Args:
        network: Network whose neurons are stabilised.
        layers: Names of the layers of these neurons.
        weight: Weight λ of the penalty. The paper's value does not apply, since this one weighs a
            mean.
        share: Share of each layer's neurons that count as sensitive.

    Raises:
        LayerNotFoundError: If a layer is not a module of the network.
        InputError: If the share is invalid, or no layer is named.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        layers: Sequence[str],
        weight: float = 1.0,
        share: float = 0.1,
    ) -> None:
        """Check the share and the layers, and keep the settings."""
        find_layers(network, layers)
        # raises now if the share or the layers are invalid
        stabilising_loss(((torch.zeros(1, 1), torch.zeros(1, 1)) for _ in layers), share=share)
        self.network = network
        self.layers = tuple(layers)
        self.weight = weight
        self.share = share

    def __call__(
        self, embed: Embed, wavs: Tensor, benign: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Embed a batch, and compare benign with adversarial crops; see ``DefenceTraining``."""
        attacked, items = len(benign), len(wavs)
        with tap_layers(self.network, self.layers) as tap:
            embeddings = embed(torch.cat([wavs, benign]))[:items]
        pairs = ((tap[name][items:], tap[name][:attacked]) for name in self.layers)
        return embeddings, self.weight * stabilising_loss(pairs, share=self.share)


def defence_training(hparams: Mapping[str, Any], network: nn.Module) -> DefenceTraining:
    """Return the training step that a recipe's YAML asks for.

    Args:
        hparams: Values of the YAML; may have ``defence_training`` (null, cas, sns or
            feature-denoising), ``defence_weight`` (null for the method's default) and, for sns,
            ``defence_share`` and ``defence_layers``.
        network: Network to train.

    Raises:
        InputError: If the name is unknown, the network does not fit, or sns gets no adversarial
            crops to compare with.
        LayerNotFoundError: If a layer is not a module of the network.
    """
    name = hparams.get("defence_training")
    weight = hparams.get("defence_weight")
    own = {} if weight is None else {"weight": float(weight)}
    if name is None:
        return DefenceTraining()
    if name == "feature-denoising":
        _require_denoising(network)
        return DefenceTraining()
    if name == "cas":
        return Suppressing(network, **own)
    if name == "sns":
        if hparams["adversarial_attack"] is None or hparams["adversarial_share"] <= 0:
            raise InputError(
                "sns got no adversarial crops, which it compares benign ones with; pass "
                "--adversarial_attack=pgd"
            )
        layers, share = hparams["defence_layers"], hparams["defence_share"]
        return Stabilising(network, layers=layers, share=share, **own)
    raise InputError(
        f"defence_training is {name!r}, expected null, cas, sns or feature-denoising; see the YAML"
    )


def _require_denoising(network: nn.Module) -> None:
    """Refuse a network without a denoising block, whose training would silently be a plain one."""
    if not any(isinstance(module, DenoisingBlock) for module in network.modules()):
        raise InputError(
            f"{type(network).__name__} has no DenoisingBlock, which feature-denoising needs; pass "
            "defence: feature-denoising to the network in the YAML if it has one (AudioNet does), "
            "or leave defence_training null"
        )
