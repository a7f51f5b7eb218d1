"""Any network as one instrumented model: raw input → model input → embedding → scores."""

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
    """What an ``InstrumentedModel`` is made of besides its network, by the argument's name."""

    front_end: nn.Module | None
    head: nn.Module | None
    output_kind: OutputKind
    labels: tuple[str, ...]
    bounds: Bounds
    input_bounds: Bounds
    scale: float


class CosineHead(nn.Module):
    """Cosine of an embedding to each reference: (B, D) → (B, C) in [-1, 1].

    The references are class weights, or the voices of enrolled speakers.
    """

    references: Tensor

    def __init__(self, references: Tensor) -> None:
        """Keep (C, D) references; their norms do not matter."""
        super().__init__()
        if references.dim() != 2 or references.shape[0] == 0:
            raise InputError(f"references are {tuple(references.shape)}, expected (C ≥ 1, D)")
        self.register_buffer("references", references.detach().clone())

    def forward(self, embeddings: Tensor) -> Tensor:
        """Score."""
        return nn.functional.linear(
            nn.functional.normalize(embeddings, dim=1),
            nn.functional.normalize(self.references, dim=1),
        )


class InstrumentedModel(nn.Module):
    """A network whose inside can be looked at, whatever its modality.

    Three stages, each usable alone: ``front_end`` turns raw input (waveform, image) into the
    model's own input (spectrogram, image), ``network`` embeds it, ``head`` scores the embedding.
    Without a head it is a bare embedding model. All stages are differentiable if their modules are.

    Args:
        network: Module called as ``network(x, lengths)`` → (B, D), where ``lengths`` is (B,) or
            None. If it has ``tap_lengths(layer, lengths)``, neuron outputs mask the padding of its
            layers.
        front_end: Module called as ``front_end(x, lengths)`` → (input, input lengths); None if raw
            input is model input.
        head: (B, D) → (B, C).
        output_kind: What the head returns. Cosines are multiplied by ``scale`` before a softmax;
            log-likelihood ratios (``llr``) are logits already, up to the speakers' priors.
        labels: Names of the C classes.
        bounds: Range of raw input.
        input_bounds: Range of model input.
        scale: Factor from cosines to logits; 1 for all other kinds.

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
        """See the class."""
        super().__init__()
        if output_kind not in get_args(OutputKind):
            raise InputError(f"output kind is {output_kind!r}, expected {get_args(OutputKind)}")
        if output_kind != "cosine" and scale != 1.0:
            raise InputError(
                f"scale is {scale:g} for {output_kind}, expected 1; only cosines are no logits yet"
            )
        if labels and head is None:
            raise InputError("labels were given without a head; pass a head, or no labels")
        self.network = network
        self.front_end = front_end
        self.head = head
        self.output_kind: OutputKind = output_kind
        self.labels = labels
        self.bounds = bounds
        self.input_bounds = bounds if input_bounds is None else input_bounds
        self.scale = scale

    def parts(self) -> Parts:
        """Return what another model around this one's network shares with it."""
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
        return Batch(x, lengths if batch.lengths is not None else None, batch.ids)

    def embed_input(self, batch: Batch) -> Tensor:
        """Embed model input: (B, D)."""
        embeddings: Tensor = self.network(batch.x, batch.lengths)
        return embeddings

    def embed(self, batch: Batch) -> Tensor:
        """Embed raw input: (B, D)."""
        return self.embed_input(self.to_input(batch))

    def score_embeddings(self, embeddings: Tensor) -> Tensor:
        """Score embeddings: (B, D) → (B, C).

        Raises:
            InputError: If the model has no head.
        """
        if self.head is None:
            raise InputError(
                "this model only embeds; enrol speakers and use with_head(CosineHead(voices))"
            )
        scores: Tensor = self.head(embeddings)
        return scores

    def scores(self, batch: Batch) -> Tensor:
        """Score raw input: (B, C), of the model's ``output_kind``."""
        return self.score_embeddings(self.embed(batch))

    def logits(self, scores: Tensor) -> Tensor:
        """Turn scores into logits."""
        return scores * self.scale

    def with_head(
        self,
        head: nn.Module,
        *,
        labels: tuple[str, ...] = (),
        output_kind: OutputKind = "cosine",
        scale: float | None = None,
    ) -> Self:
        """Return a model that shares this one's network and scores with another head.

        Args:
            head: (B, D) → (B, C).
            labels: Names of the C classes.
            output_kind: What the head returns.
            scale: Factor from cosines to logits; None is this model's own for cosines, and 1 for
                all other kinds.
        """
        if scale is None:
            scale = self.scale if output_kind == "cosine" else 1.0
        parts = self.parts()
        parts["head"], parts["labels"] = head, labels
        parts["output_kind"], parts["scale"] = output_kind, scale
        return type(self)(self.network, **parts).train(self.training)

    def without_head(self) -> Self:
        """Return a model that shares this one's network and only embeds."""
        parts = self.parts()
        parts["head"], parts["labels"] = None, ()
        parts["output_kind"], parts["scale"] = "logits", 1.0
        return type(self)(self.network, **parts).train(self.training)

    def without_front_end(self) -> Self:
        """Return a model that shares this one's parts and takes model input as its raw input.

        What works on raw input, as attacks do, then works on the spectrogram.
        """
        parts = self.parts()
        parts["front_end"], parts["bounds"] = None, self.input_bounds
        return type(self)(self.network, **parts).train(self.training)

    def tap(self, *layers: str) -> AbstractContextManager[LayerTap]:
        """Record the outputs of layers of ``network``; see ``tap_layers``."""
        return tap_layers(self.network, layers)

    def tap_lengths(self, layer: str, lengths: Tensor | None) -> Tensor | None:
        """Valid positions of a layer's output, given those of the model input."""
        lengths_of: Any = getattr(self.network, "tap_lengths", None)
        if lengths is None or lengths_of is None:
            return None
        out: Tensor = lengths_of(layer, lengths)
        return out

    def forward(self, batch: Batch) -> Tensor:
        """Score raw input if the model has a head, else embed it."""
        embeddings = self.embed(batch)
        return embeddings if self.head is None else self.score_embeddings(embeddings)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """Return the index of the best class: (B,)."""
        return self.scores(batch).argmax(dim=1)
