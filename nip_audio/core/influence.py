"""Neuron outputs, their influence on a decision, and front, tail and remaining neurons.

Source: NIP (arXiv 2112.13060), Eq. 1–2 and Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch, length_mask, masked_mean
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError

__all__ = [
    "InfluenceOf",
    "NeuronSelection",
    "input_influence",
    "linear_influence",
    "neuron_influence",
    "neuron_outputs",
    "select_neurons",
]

InfluenceOf = Literal["logit", "confidence"]


def neuron_outputs(activation: Tensor, lengths: Tensor | None = None) -> Tensor:
    """φ: one number a neuron (NIP, Eq. 1).

    A neuron of a feature map is a channel, so its index does not move with the input's length.

    Args:
        activation: (B, N) or (B, N, *S).
        lengths: (B,) valid positions of the last axis; used for (B, N, *S) only.

    Returns:
        (B, N).

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
    """σ = (∂y/∂φ)∘φ by automatic differentiation, for any layer and head (NIP, Eq. 2).

    ∂y/∂φ of a feature map is the change of y when the whole map of a neuron shifts: the gradient
    summed over the valid positions.

    y is the target class's logit or softmax confidence. A bare embedding model has no classes; its
    y is the length of the embedding along its own direction (``of="logit"``).

    Deviation: the paper takes the confidence; it saturates near 1 and its gradient vanishes, so the
    logit is the default here.

    Args:
        model: In evaluation mode; nothing in it changes, and no ``.grad`` is touched.
        batch: Model input (``model.to_input``), B items.
        layer: Name of the tapped layer, with N neurons.
        of: What is differentiated.
        target: (B,) classes; None takes the predicted ones.

    Returns:
        (B, N), detached.

    Raises:
        InputError: If a class or the confidence is asked of a model without a head, or y does not
            depend on the layer.
        LayerNotFoundError: With near matches.
    """
    with torch.enable_grad(), model.tap(layer) as tap:
        # a leaf that requires grad, so that the graph exists even for frozen weights
        x = batch.x.detach().clone().requires_grad_(True)
        embeddings = model.embed_input(batch.with_x(x))
        y = _decision(model, embeddings, of, target)
        activation = tap[layer]
        (gradient,) = torch.autograd.grad(y.sum(), activation, allow_unused=True)
    if gradient is None:
        raise InputError(
            f"the decision does not depend on layer {layer!r}; tap one before the head"
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
    """Return (∂y/∂x)∘x: NIP's Eq. 2 with the model's input in the place of a layer.

    Args:
        model: As in ``neuron_influence``.
        batch: Model input, B items.
        of: As in ``neuron_influence``.
        target: As in ``neuron_influence``.

    Returns:
        Of the shape of ``batch.x``, detached.

    Raises:
        InputError: If a class or the confidence is asked of a model without a head.
    """
    with torch.enable_grad():
        x = batch.x.detach().clone().requires_grad_(True)
        y = _decision(model, model.embed_input(batch.with_x(x)), of, target)
        (gradient,) = torch.autograd.grad(y.sum(), x)
    return (gradient * x).detach()


def _decision(
    model: InstrumentedModel, embeddings: Tensor, of: InfluenceOf, target: Tensor | None
) -> Tensor:
    """Return y, (B,)."""
    if of not in ("logit", "confidence"):
        raise InputError(f"influence of {of!r}, expected 'logit' or 'confidence'")
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
    """σ in closed form where the logits are ``phi @ weight.T + bias``: no backward pass at all.

    From the logit σ = W_c∘φ; from the confidence σ = y_c (W_c − Σ_k y_k W_k)∘φ (NIP, Eq. 2).

    Args:
        phi: (B, N) neuron outputs.
        weight: (C, N).
        bias: (C,).
        of: As in ``neuron_influence``.
        target: (B,) classes; None takes the predicted ones.

    Returns:
        (B, N).

    Example:
        >>> linear_influence(torch.tensor([[2.0, 1.0]]), torch.tensor([[3.0, -1.0], [0.0, 0.0]]))
        tensor([[ 6., -1.]])
    """
    if of not in ("logit", "confidence"):
        raise InputError(f"influence of {of!r}, expected 'logit' or 'confidence'")
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
    """Neurons of each item in three parts, every part in descending order of influence.

    Attributes:
        front: (B, k1) most influential.
        tail: (B, k2) least influential.
        remaining: (B, N − k1 − k2).
    """

    front: Tensor
    tail: Tensor
    remaining: Tensor


def select_neurons(influence: Tensor, *, front: int = 5, tail: int = 5) -> NeuronSelection:
    """Sort by influence and cut (NIP, Algorithm 1); ties keep the order of their indices.

    Args:
        influence: (B, N).
        front: k1 ≥ 0.
        tail: k2 ≥ 0.

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
            "leave at least one; lower k1 or k2, or tap a wider layer"
        )
    order = influence.argsort(dim=1, descending=True, stable=True)
    return NeuronSelection(
        front=order[:, :front],
        tail=order[:, neurons - tail :],
        remaining=order[:, front : neurons - tail],
    )
