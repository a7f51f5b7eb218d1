"""Compute neuron outputs and their influence on a decision, and select front and tail neurons.

Source: neuron-level inverse perturbation (NIP; Chen et al., arXiv 2112.13060), Eq. 1, Eq. 2 and
Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch, length_mask, masked_mean
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import GradientError, InputError

__all__ = [
    "InfluenceOf",
    "NeuronSelection",
    "input_influence",
    "linear_influence",
    "neuron_influence",
    "neuron_outputs",
    "require_gradient",
    "select_neurons",
]

InfluenceOf = Literal["logit", "confidence"]


def neuron_outputs(activation: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Return φ, one output per neuron (NIP, Eq. 1).

    In a feature map a neuron is a channel, so its index does not depend on the input's length.

    Args:
        activation: (B, N) or (B, N, *S) output of a layer.
        lengths: (B,) valid positions on the last axis of (B, N, *S); None means all.

    Returns:
        (B, N), averaged over the valid positions.

    Example:
        >>> neuron_outputs(torch.tensor([[[1.0, 3.0, 100.0]]]), torch.tensor([2])).tolist()
        [[2.0]]
    """
    return activation if activation.dim() == 2 else masked_mean(activation, lengths)


def neuron_influence(
    model: InstrumentedModel,
    batch: Batch,
    layer: str,
    *,
    of: InfluenceOf = "logit",
    target: Tensor | None = None,
) -> Tensor:
    """Return the influence σ = (∂y/∂φ)∘φ by automatic differentiation (NIP, Eq. 2).

    In a feature map, ∂y/∂φ is the change of y when a neuron's whole map shifts: the gradient summed
    over the valid positions.

    The decision y is the target class's logit or softmax confidence. A bare embedding model has no
    classes; there y is the length of the embedding along its own direction (``of="logit"``).

    Deviation: the paper uses the confidence, which saturates near 1 so that its gradient vanishes;
    the logit is the default here.

    Args:
        model: Model in evaluation mode; it is not changed, and no ``.grad`` is set.
        batch: B items as model input (``model.to_input``).
        layer: Name of the tapped layer, which has N neurons.
        of: Decision y to differentiate: the logit or the softmax confidence.
        target: (B,) class indices; None uses the predicted classes.

    Returns:
        (B, N), detached.

    Raises:
        InputError: If a class or the confidence is requested from a model without a head, or y does
            not depend on the layer.
        GradientError: If the model gives no gradient.
        LayerNotFoundError: If the layer does not exist; the message suggests similar names.
    """
    with torch.enable_grad(), model.tap(layer) as tap:
        # a leaf that requires grad, so that the graph exists even for frozen weights
        x = batch.x.detach().clone().requires_grad_(True)
        embeddings = model.embed_input(batch.with_x(x))
        y = _decision(model, embeddings, of, target)
        require_gradient(y)
        activation = tap[layer]
        (gradient,) = torch.autograd.grad(y.sum(), activation, allow_unused=True)
    if gradient is None:
        raise InputError(
            f"the decision does not depend on layer {layer!r}; tap a layer before the head"
        )
    lengths = model.tap_lengths(layer, batch.lengths)
    if gradient.dim() > 2:
        if lengths is not None:
            mask = length_mask(lengths, gradient.shape[-1])
            gradient = gradient * mask.reshape(len(batch), *[1] * (gradient.dim() - 2), -1)
        gradient = gradient.flatten(2).sum(dim=2)
    return (gradient * neuron_outputs(activation, lengths)).detach()


def input_influence(
    model: InstrumentedModel,
    batch: Batch,
    *,
    of: InfluenceOf = "logit",
    target: Tensor | None = None,
) -> Tensor:
    """Return (∂y/∂x)∘x: NIP's Eq. 2 with the model's input in place of a layer.

    Args:
        model: Model in evaluation mode; it is not changed, and no ``.grad`` is set.
        batch: B items as model input (``model.to_input``).
        of: Decision y to differentiate: the logit or the softmax confidence.
        target: (B,) class indices; None uses the predicted classes.

    Returns:
        Influence of each input value, detached, with the shape of ``batch.x``.

    Raises:
        InputError: If a class or the confidence is requested from a model without a head.
        GradientError: If the model gives no gradient.
    """
    with torch.enable_grad():
        x = batch.x.detach().clone().requires_grad_(True)
        y = _decision(model, model.embed_input(batch.with_x(x)), of, target)
        require_gradient(y)
        (gradient,) = torch.autograd.grad(y.sum(), x)
    return (gradient * x).detach()


def require_gradient(output: Tensor) -> None:
    """Refuse what a model returned outside of the autograd graph, as a black box does.

    Raises:
        GradientError: If it has no gradient.
    """
    if not output.requires_grad:
        raise GradientError(
            "this model gives no gradient, because it runs as a black box, expected a "
            "differentiable one; use what needs no gradient (the attacks fakebob and hopskipjump, "
            "the purifiers noise, quantization and median), or train a substitute for the model: "
            "docs/howto/your-own-model.md, Black box"
        )


def _decision(
    model: InstrumentedModel, embeddings: Tensor, of: InfluenceOf, target: Tensor | None
) -> Tensor:
    """Return the decision y of each item, (B,)."""
    if of not in ("logit", "confidence"):
        raise InputError(f"got of={of!r}, expected 'logit' or 'confidence'")
    if model.head is None:
        if target is not None or of == "confidence":
            raise InputError(
                "a bare embedding model has no classes; leave target out and use of='logit', or "
                "give it a head"
            )
        return (embeddings * torch.nn.functional.normalize(embeddings.detach(), dim=1)).sum(dim=1)
    logits = model.logits(model.score_embeddings(embeddings))
    if target is None:
        target = logits.argmax(dim=1)
    values = logits if of == "logit" else logits.softmax(dim=1)
    return values.gather(1, target[:, None]).squeeze(1)


def linear_influence(
    phi: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    of: InfluenceOf = "logit",
    target: Tensor | None = None,
) -> Tensor:
    """Return σ in closed form, without a backward pass, for logits ``phi @ weight.T + bias``.

    For the logit σ = W_c∘φ; for the confidence σ = y_c (W_c − Σ_k y_k W_k)∘φ (NIP, Eq. 2).

    Args:
        phi: (B, N) neuron outputs.
        weight: (C, N) weights of the linear head.
        bias: (C,) biases of the linear head; None means none.
        of: Decision to differentiate: the logit or the softmax confidence.
        target: (B,) class indices; None uses the predicted classes.

    Returns:
        (B, N) influence of each neuron.

    Raises:
        InputError: If ``of`` is neither ``logit`` nor ``confidence``.

    Example:
        >>> linear_influence(torch.tensor([[2.0, 1.0]]), torch.tensor([[3.0, -1.0], [0.0, 0.0]]))
        tensor([[ 6., -1.]])
    """
    if of not in ("logit", "confidence"):
        raise InputError(f"got of={of!r}, expected 'logit' or 'confidence'")
    logits = torch.nn.functional.linear(phi, weight, bias)
    if target is None:
        target = logits.argmax(dim=1)
    rows = weight[target]
    if of == "logit":
        return rows * phi
    confidence = logits.softmax(dim=1)
    chosen = confidence.gather(1, target[:, None])
    return chosen * (rows - confidence @ weight) * phi


@dataclass(frozen=True)
class NeuronSelection:
    """Neuron indices of each item in three groups, each in descending order of influence.

    Attributes:
        front: (B, k1) indices of the most influential neurons.
        tail: (B, k2) indices of the least influential neurons.
        remaining: (B, N − k1 − k2) indices of all other neurons.
    """

    front: Tensor
    tail: Tensor
    remaining: Tensor


def select_neurons(influence: Tensor, *, front: int = 5, tail: int = 5) -> NeuronSelection:
    """Split neurons by their influence (NIP, Algorithm 1); ties keep the order of their indices.

    Args:
        influence: (B, N) influence of each neuron.
        front: Number k1 ≥ 0 of front neurons.
        tail: Number k2 ≥ 0 of tail neurons.

    Raises:
        InputError: If a count is negative or no neuron would remain.

    Example:
        >>> select_neurons(torch.tensor([[0.1, 0.9, -0.5]]), front=1, tail=1).remaining.tolist()
        [[0]]
    """
    neurons = influence.shape[1]
    if front < 0 or tail < 0 or front + tail >= neurons:
        raise InputError(
            f"front = {front} and tail = {tail} of {neurons} neurons, expected two counts ≥ 0 that "
            "leave at least one neuron; lower one of them, or tap a wider layer"
        )
    order = influence.argsort(dim=1, descending=True, stable=True)
    return NeuronSelection(
        front=order[:, :front],
        tail=order[:, neurons - tail :],
        remaining=order[:, front : neurons - tail],
    )
