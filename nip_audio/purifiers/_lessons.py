"""Training examples of the guided purifier, and its loss at the neurons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch
from nip_audio.core.influence import neuron_outputs, require_gradient
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import GradientError, InputError

_SAME_VOICE = 0.3  # cosine distance below which two embeddings count as the same speaker


@dataclass(frozen=True)
class TrainingExamples:
    """Pairs of benign and attacked items, with the model's response to the clean originals.

    Attributes:
        clean: Clean model input, (B, *S).
        benign: Clean input as the purifier receives it, (B, *S): with the noise that precedes the
            purifier, if there is any.
        attacked: Attacked input as the purifier receives it, (B, *S), with the same kind of noise.
        response: Response of the model to ``clean``, which is the training target.
    """

    clean: Batch
    benign: Tensor
    attacked: Tensor
    response: CleanResponse

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.clean)

    @classmethod
    def join(cls, parts: Sequence[TrainingExamples]) -> TrainingExamples:
        """Concatenate batches of examples of one shape."""
        if len(parts) == 1:
            return parts[0]
        lengths = [p.clean.lengths for p in parts if p.clean.lengths is not None]
        return cls(
            Batch(torch.cat([p.clean.x for p in parts]), torch.cat(lengths) if lengths else None),
            torch.cat([p.benign for p in parts]),
            torch.cat([p.attacked for p in parts]),
            CleanResponse.join([p.response for p in parts]),
        )

    def rows(self, rows: Tensor) -> TrainingExamples:
        """Select items by index."""
        lengths = self.clean.lengths
        clean = Batch(self.clean.x[rows], None if lengths is None else lengths[rows])
        return TrainingExamples(
            clean, self.benign[rows], self.attacked[rows], self.response.rows(rows)
        )


@dataclass(frozen=True)
class CleanResponse:
    """Response of the model to clean items, which purified items should reproduce.

    Attributes:
        embeddings: (B, D) embeddings.
        predictions: (B,) predicted classes; None for a bare embedding model.
        neurons: Neuron outputs φ (NIP, Eq. 1) by layer, (B, N) each.
        weights: Weight of each neuron in the loss by layer, (B, N) each.
    """

    embeddings: Tensor
    predictions: Tensor | None
    neurons: dict[str, Tensor]
    weights: dict[str, Tensor]

    @classmethod
    def of(
        cls, model: InstrumentedModel, clean: Batch, layers: Sequence[str], influence_weight: float
    ) -> CleanResponse:
        """Record a model's response to clean items.

        Args:
            model: Frozen model in evaluation mode.
            clean: Clean model input.
            layers: Names of the layers whose neurons are recorded.
            influence_weight: Extra weight of a neuron of average influence (NIP, Eq. 2) over a
                neuron without influence.

        Raises:
            InputError: If the decision does not depend on a layer.
            GradientError: If the model gives no gradient, or one that is not finite.
        """
        with torch.enable_grad(), model.tap(*layers) as tap:
            x = clean.x.detach().requires_grad_(True)
            embeddings = model.embed_input(clean.with_x(x))
            predictions = None
            if model.head is None:
                y = (embeddings * nn.functional.normalize(embeddings.detach(), dim=1)).sum(dim=1)
            else:
                logits = model.logits(model.score_embeddings(embeddings))
                predictions = logits.argmax(dim=1)
                y = logits.gather(1, predictions[:, None])
            require_gradient(y)
            maps = {layer: tap[layer] for layer in layers}
            # one backward pass for the influence of the neurons of all layers
            gradients = torch.autograd.grad(y.sum(), list(maps.values()), allow_unused=True)
        neurons, weights = {}, {}
        for (layer, activation), gradient in zip(maps.items(), gradients, strict=True):
            if gradient is None:
                raise InputError(f"the decision does not depend on layer {layer!r}; leave it out")
            if not bool(gradient.isfinite().all()):
                raise GradientError(
                    f"the gradient of the decision at layer {layer!r} is not finite, expected "
                    "numbers; the model computes something without a gradient there, such as the "
                    "standard deviation of a constant: add a small number to it"
                )
            phi = neuron_outputs(activation, model.tap_lengths(layer, clean.lengths)).detach()
            total = gradient if gradient.dim() == 2 else gradient.flatten(2).sum(dim=2)
            influence = (total * phi).abs()
            relative = influence / influence.mean(dim=1, keepdim=True).clamp_min(1e-12)
            neurons[layer] = phi
            weights[layer] = 1 + influence_weight * relative
        return cls(embeddings.detach(), predictions, neurons, weights)

    @classmethod
    def join(cls, parts: Sequence[CleanResponse]) -> CleanResponse:
        """Concatenate the responses to several batches."""
        predictions = [p.predictions for p in parts if p.predictions is not None]
        layers = parts[0].neurons
        return cls(
            torch.cat([p.embeddings for p in parts]),
            torch.cat(predictions) if predictions else None,
            {layer: torch.cat([p.neurons[layer] for p in parts]) for layer in layers},
            {layer: torch.cat([p.weights[layer] for p in parts]) for layer in layers},
        )

    def rows(self, rows: Tensor) -> CleanResponse:
        """Select items by index."""
        return CleanResponse(
            self.embeddings[rows],
            None if self.predictions is None else self.predictions[rows],
            {layer: phi[rows] for layer, phi in self.neurons.items()},
            {layer: weight[rows] for layer, weight in self.weights.items()},
        )

    def loss(
        self, model: InstrumentedModel, purified: Batch, *, decision_weight: float
    ) -> tuple[Tensor, Tensor]:
        """Compare the model's response to purified items with its response to the clean ones.

        Args:
            model: Model that the clean response was recorded with.
            purified: Purified model input.
            decision_weight: Weight of the decision in the loss, against that of the neurons.

        Returns:
            The mean loss, and (B,) bool: which items keep their prediction, or for a bare
            embedding model their voice.
        """
        with model.tap(*self.neurons) as tap:
            embeddings = model.embed_input(purified)
            total = torch.zeros((), device=embeddings.device)
            for layer, phi in self.neurons.items():
                now = neuron_outputs(tap[layer], model.tap_lengths(layer, purified.lengths))
                weight = self.weights[layer]
                deviation = (weight * (now - phi).square()).sum(dim=1)
                total = (
                    total + (deviation / (weight * phi.square()).sum(dim=1).clamp_min(1e-6)).mean()
                )
        total = total / len(self.neurons)
        angle = 1 - nn.functional.cosine_similarity(embeddings, self.embeddings)
        if self.predictions is None:
            return total + decision_weight * 5 * angle.mean(), angle < _SAME_VOICE
        logits = model.logits(model.score_embeddings(embeddings))
        cross_entropy = nn.functional.cross_entropy(logits, self.predictions)
        kept = logits.argmax(dim=1) == self.predictions
        return total + decision_weight * (cross_entropy + angle.mean()), kept
