"""What proactive defences add to a training step; each yields another model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nip_audio.core.taps import find_layers, tap_layers
from nip_audio.errors import InputError
from nip_audio.integrations.neuron_stabilising import stabilising_loss
from nip_audio.models.channel_suppression import ChannelSuppression

__all__ = ["DefenceTraining", "Stabilising", "Suppressing", "defence_training"]

Embed = Callable[[Tensor], Tensor]
"""(B, N) waveforms → (B, D) embeddings, by the network as it is now."""


class DefenceTraining:
    """A training step without any proactive defence, or with one that is all architecture."""

    def __call__(
        self, embed: Embed, wavs: Tensor, benign: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Embed a batch.

        Args:
            embed: The network.
            wavs: (B, N) crops, of which the first A are adversarial.
            benign: (A, N) what those were made from.
            labels: (B,) classes.

        Returns:
            (B, D) embeddings, and what is to be added to the loss, ().
        """
        return embed(wavs), wavs.new_zeros(())


class Suppressing(DefenceTraining):
    """CAS: the true class's channel weights, and the cross-entropy of the auxiliary classifiers.

    Bai et al., ICLR 2021, Sec. 3: the loss is CE(p, y) + β/S · Σ_s CE(p_s, y) over the S modules.

    Deviation: the adversarial crops are those of the recipe, made against CE(p, y) alone and, as at
    test time, with the classes that the modules name; the authors' training attack maximises the
    sum.

    Args:
        network: With at least one ``ChannelSuppression``.
        weight: β; the paper's is 2.

    Raises:
        InputError: If the network has no such module.
    """

    def __init__(self, network: nn.Module, *, weight: float = 2.0) -> None:
        """See the class."""
        self.network = network
        self.weight = weight
        self.modules = {
            name: module
            for name, module in network.named_modules()
            if isinstance(module, ChannelSuppression)
        }
        if not self.modules:
            raise InputError(
                f"{type(network).__name__} has no ChannelSuppression, expected one for cas; give "
                "the network defence: cas"
            )

    def __call__(
        self, embed: Embed, wavs: Tensor, benign: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Embed a batch, the classes told; see the base class."""
        classifiers = [f"{name}.classifier" for name in self.modules]
        with ExitStack() as told, tap_layers(self.network, classifiers) as tap:
            for module in self.modules.values():
                told.enter_context(module.given_labels(labels))
            embeddings = embed(wavs)
        losses = [cross_entropy(tap[name], labels) for name in classifiers]
        return embeddings, self.weight * torch.stack(losses).mean()


class Stabilising(DefenceTraining):
    """SNS: λ times how far adversarial perturbations move the most sensitive neurons.

    See ``stabilising_loss``. Benign and adversarial versions go through the network together, so
    that batch normalisation treats them alike.

    Args:
        network: Whose neurons are held still.
        layers: Names of their layers.
        weight: λ. The paper's is not taken over: this one weighs a mean.
        share: Of each layer's neurons that count as sensitive.

    Raises:
        LayerNotFoundError: If a layer is no module of the network.
        InputError: If the share makes no sense, or no layer is named.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        layers: Sequence[str],
        weight: float = 1.0,
        share: float = 0.1,
    ) -> None:
        """See the class."""
        find_layers(network, layers)
        # says now what is wrong with the share or the layers
        stabilising_loss(((torch.zeros(1, 1), torch.zeros(1, 1)) for _ in layers), share=share)
        self.network = network
        self.layers = tuple(layers)
        self.weight = weight
        self.share = share

    def __call__(
        self, embed: Embed, wavs: Tensor, benign: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Embed a batch, and compare; see the base class."""
        attacked, items = len(benign), len(wavs)
        with tap_layers(self.network, self.layers) as tap:
            embeddings = embed(torch.cat([wavs, benign]))[:items]
        pairs = ((tap[name][items:], tap[name][:attacked]) for name in self.layers)
        return embeddings, self.weight * stabilising_loss(pairs, share=self.share)


def defence_training(hparams: Mapping[str, Any], network: nn.Module) -> DefenceTraining:
    """Return what a recipe's YAML asks for.

    Args:
        hparams: May have ``defence_training`` (null, cas, sns or feature-denoising), with
            ``defence_weight`` (null is the method's own), ``defence_share`` and
            ``defence_layers`` (of sns).
        network: The network that is trained.

    Raises:
        InputError: If the name is unknown, the network does not fit, or sns has no adversarial
            crops to compare with.
        LayerNotFoundError: If a layer is no module of the network.
    """
    name = hparams.get("defence_training")
    weight = hparams.get("defence_weight")
    own = {} if weight is None else {"weight": float(weight)}
    if name in (None, "feature-denoising"):
        return DefenceTraining()
    if name == "cas":
        return Suppressing(network, **own)
    if name == "sns":
        if hparams["adversarial_attack"] is None or hparams["adversarial_share"] <= 0:
            raise InputError(
                "sns got no adversarial crops, expected some to compare benign ones with; pass "
                "--adversarial_attack=pgd"
            )
        layers, share = hparams["defence_layers"], hparams["defence_share"]
        return Stabilising(network, layers=layers, share=share, **own)
    raise InputError(
        f"defence_training is {name!r}, expected null, cas, sns or feature-denoising; see the YAML"
    )
