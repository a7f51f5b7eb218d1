"""Wrap any network as one instrumented model: raw input → model input → embedding → scores.

Every stage can be called alone, and the outputs of inner layers can be recorded.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Literal, Self, TypedDict, get_args

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch, Bounds
from nip_audio.core.taps import LayerTap, tap_layers
from nip_audio.errors import InputError

__all__ = ["CosineHead", "InstrumentedModel", "OutputKind", "Parts"]

OutputKind = Literal["logits", "cosine", "llr"]


class Parts(TypedDict):
    """Arguments of ``InstrumentedModel`` other than its network."""

    front_end: nn.Module | None
    head: nn.Module | None
    output_kind: OutputKind
    labels: tuple[str, ...]
    bounds: Bounds
    input_bounds: Bounds
    scale: float


class CosineHead(nn.Module):
    """Score embeddings by their cosine to each reference: (B, D) → (B, C) in [-1, 1].

    The references are class weights, or the embeddings of enrolled speakers.

    Args:
        references: (C, D) reference embeddings; their norms do not matter.

    Raises:
        InputError: If there is no reference, or the shape is another.
    """

    references: Tensor

    def __init__(self, references: Tensor) -> None:
        """Keep a copy of the references as a buffer."""
        super().__init__()
        if references.dim() != 2 or references.shape[0] == 0:
            raise InputError(
                f"references are {tuple(references.shape)}, expected (classes ≥ 1, dimensions)"
            )
        self.register_buffer("references", references.detach().clone())

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the (B, C) cosines of (B, D) embeddings."""
        return nn.functional.linear(
            nn.functional.normalize(embeddings, dim=1),
            nn.functional.normalize(self.references, dim=1),
        )


class InstrumentedModel(nn.Module):
    """A network of any modality whose inner layers can be observed.

    It has three stages, each usable alone: ``front_end`` turns raw input (waveform, image) into the
    model's own input (spectrogram, image), ``network`` embeds it, ``head`` scores the embedding.
    Without a head it is a bare embedding model. Each stage is differentiable if its module is.

    Args:
        network: Module called as ``network(x, lengths)`` → (B, D), where ``lengths`` is (B,) or
            None. If it has a method ``tap_lengths(layer, lengths)``, padding is masked out of
            neuron outputs. An attribute ``tap_axes`` says where the channels of layers lie that do
            not have them in axis 1; see ``tap_layers``.
        front_end: Module called as ``front_end(x, lengths)`` → (input, input lengths); None if raw
            input is model input.
        head: Module that maps embeddings (B, D) to scores (B, C); None for an embedding model.
        output_kind: What the head returns. Cosines are multiplied by ``scale`` before a softmax;
            log-likelihood ratios (``llr``) are logits already, up to the speakers' priors.
        labels: Names of the C classes.
        bounds: Range of raw input values.
        input_bounds: Range of model input values; None means the same as ``bounds``.
        scale: Factor from cosines to logits; 1 for all other output kinds.

    Raises:
        InputError: If the parts do not fit together.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        front_end: nn.Module | None = None,
        head: nn.Module | None = None,
        output_kind: OutputKind = "logits",
        labels: tuple[str, ...] = (),
        bounds: Bounds,
        input_bounds: Bounds | None = None,
        scale: float = 1.0,
    ) -> None:
        """Keep the parts after checking that they fit together."""
        super().__init__()
        if output_kind not in get_args(OutputKind):
            raise InputError(
                f"output kind is {output_kind!r}, expected one of {get_args(OutputKind)}"
            )
        if output_kind != "cosine" and scale != 1.0:
            raise InputError(
                f"scale is {scale:g} for {output_kind}, expected 1; only cosines are scaled to "
                "logits"
            )
        if labels and head is None:
            raise InputError("got labels but no head; pass a head, or leave the labels out")
        self.network = network
        self.front_end = front_end
        self.head = head
        self.output_kind: OutputKind = output_kind
        self.labels = labels
        self.bounds = Bounds.of(bounds)
        self.input_bounds = self.bounds if input_bounds is None else Bounds.of(input_bounds)
        self.scale = scale

    def parts(self) -> Parts:
        """Return all parts but the network, as arguments for another model around it."""
        return Parts(
            front_end=self.front_end,
            head=self.head,
            output_kind=self.output_kind,
            labels=self.labels,
            bounds=self.bounds,
            input_bounds=self.input_bounds,
            scale=self.scale,
        )

    def to_input(self, batch: Batch) -> Batch:
        """Turn raw input into model input."""
        if self.front_end is None:
            return batch
        x, lengths = self.front_end(batch.x, batch.lengths)
        return Batch(x, lengths if batch.lengths is not None else None)

    def embed_input(self, batch: Batch) -> Tensor:
        """Embed model input; returns (B, D)."""
        embeddings: Tensor = self.network(batch.x, batch.lengths)
        return embeddings

    def embed(self, batch: Batch) -> Tensor:
        """Embed raw input; returns (B, D)."""
        return self.embed_input(self.to_input(batch))

    def score_embeddings(self, embeddings: Tensor) -> Tensor:
        """Score embeddings: (B, D) → (B, C).

        Raises:
            InputError: If the model has no head.
        """
        if self.head is None:
            raise InputError(
                "this model has no head and only embeds; enrol speakers and use "
                "with_head(CosineHead(voices))"
            )
        scores: Tensor = self.head(embeddings)
        return scores

    def scores(self, batch: Batch) -> Tensor:
        """Score raw input; returns (B, C) scores of the model's ``output_kind``."""
        return self.score_embeddings(self.embed(batch))

    def logits(self, scores: Tensor) -> Tensor:
        """Turn scores into logits of the same shape."""
        return scores * self.scale

    def with_head(
        self,
        head: nn.Module,
        *,
        labels: tuple[str, ...] = (),
        output_kind: OutputKind = "cosine",
        scale: float | None = None,
    ) -> Self:
        """Return a model with the same network and another head.

        Args:
            head: Module that maps embeddings (B, D) to scores (B, C).
            labels: Names of the C classes.
            output_kind: What the head returns.
            scale: Factor from cosines to logits; None means this model's own scale for cosines,
                and 1 for all other output kinds.
        """
        if scale is None:
            scale = self.scale if output_kind == "cosine" else 1.0
        parts = self.parts()
        parts["head"], parts["labels"] = head, labels
        parts["output_kind"], parts["scale"] = output_kind, scale
        return type(self)(self.network, **parts).train(self.training)

    def without_head(self) -> Self:
        """Return a model with the same network and no head, which only embeds."""
        parts = self.parts()
        parts["head"], parts["labels"] = None, ()
        parts["output_kind"], parts["scale"] = "logits", 1.0
        return type(self)(self.network, **parts).train(self.training)

    def without_front_end(self) -> Self:
        """Return a model with the same network and head that takes model input as its raw input.

        Attacks work on raw input; on this model they work on the spectrogram.
        """
        parts = self.parts()
        parts["front_end"], parts["bounds"] = None, self.input_bounds
        return type(self)(self.network, **parts).train(self.training)

    def tap(self, *layers: str) -> AbstractContextManager[LayerTap]:
        """Record outputs of the network's layers while the context is open; see ``tap_layers``."""
        return tap_layers(self.network, layers, axes=getattr(self.network, "tap_axes", None))

    def tap_lengths(self, layer: str, lengths: Tensor | None) -> Tensor | None:
        """Return the valid positions of a layer's output, (B,), given those of the model input."""
        lengths_of: Any = getattr(self.network, "tap_lengths", None)
        if lengths is None or lengths_of is None:
            return None
        out: Tensor = lengths_of(layer, lengths)
        return out

    def forward(self, batch: Batch) -> Tensor:
        """Score raw input if the model has a head; otherwise embed it."""
        embeddings = self.embed(batch)
        return embeddings if self.head is None else self.score_embeddings(embeddings)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """Return the index of the predicted class, (B,)."""
        return self.scores(batch).argmax(dim=1)
