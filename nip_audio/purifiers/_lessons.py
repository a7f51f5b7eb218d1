"""What a purifier is shown in training, and what is to come of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nip_audio.core.adapter import Batch
from nip_audio.core.influence import neuron_outputs
from nip_audio.core.model import InstrumentedModel
from nip_audio.errors import InputError

_SAME_VOICE = 0.3  # 1 − cosine below which two embeddings would be taken for one speaker


@dataclass(frozen=True)
class Lessons:
    """Items in pairs of what is shown, benign or attacked, and what is to come of it.

    Attributes:
        clean: Model input.
        benign: The same, as the purifier is shown it: with the noise it stands behind, if any.
        attacked: What an attacker made of it, likewise.
        truth: What the model makes of ``clean``.
    """

    clean: Batch
    benign: Tensor
    attacked: Tensor
    truth: Truth

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.clean)

    @classmethod
    def join(cls, parts: Sequence[Lessons]) -> Lessons:
        """Put batches of one shape together."""
        if len(parts) == 1:
            return parts[0]
        lengths = [p.clean.lengths for p in parts if p.clean.lengths is not None]
        return cls(
            Batch(torch.cat([p.clean.x for p in parts]), torch.cat(lengths) if lengths else None),
            torch.cat([p.benign for p in parts]),
            torch.cat([p.attacked for p in parts]),
            Truth.join([p.truth for p in parts]),
        )

    def rows(self, rows: Tensor) -> Lessons:
        """Pick items."""
        lengths = self.clean.lengths
        clean = Batch(self.clean.x[rows], None if lengths is None else lengths[rows])
        return Lessons(clean, self.benign[rows], self.attacked[rows], self.truth.rows(rows))


@dataclass(frozen=True)
class Truth:
    """What the model makes of the unattacked items, to which everything is to be brought back.

    Attributes:
        embeddings: (B, D).
        named: (B,) classes; None for a bare embedding model.
        neurons: (B, N) outputs φ, by layer.
        weights: (B, N) how much each neuron counts, by layer.
    """

    embeddings: Tensor
    named: Tensor | None
    neurons: dict[str, Tensor]
    weights: dict[str, Tensor]

    @classmethod
    def of(
        cls, model: InstrumentedModel, clean: Batch, layers: Sequence[str], influence_weight: float
    ) -> Truth:
        """Look at a model.

        Args:
            model: Frozen, in evaluation mode.
            clean: Unattacked model input.
            layers: Whose neurons are looked at.
            influence_weight: How much more an influential neuron counts than one without
                influence.

        Raises:
            InputError: If the decision does not depend on a layer.
        """
        with torch.enable_grad(), model.tap(*layers) as tap:
            x = clean.x.detach().requires_grad_(True)
            embeddings = model.embed_input(clean.with_x(x))
            named = None
            if model.head is None:
                y = (embeddings * nn.functional.normalize(embeddings.detach(), dim=1)).sum(dim=1)
            else:
                logits = model.logits(model.score_embeddings(embeddings))
                named = logits.argmax(dim=1)
                y = logits.gather(1, named[:, None])
            maps = {layer: tap[layer] for layer in layers}
            # one backward pass for the influence of the neurons of all layers
            gradients = torch.autograd.grad(y.sum(), list(maps.values()), allow_unused=True)
        neurons, weights = {}, {}
        for (layer, activation), gradient in zip(maps.items(), gradients, strict=True):
            if gradient is None:
                raise InputError(f"the decision does not depend on layer {layer!r}; leave it out")
            phi = neuron_outputs(activation, model.tap_lengths(layer, clean.lengths)).detach()
            total = gradient if gradient.dim() == 2 else gradient.flatten(2).sum(dim=2)
            influence = (total * phi).abs()
            relative = influence / influence.mean(dim=1, keepdim=True).clamp_min(1e-12)
            neurons[layer] = phi
            weights[layer] = 1 + influence_weight * relative
        return cls(embeddings.detach(), named, neurons, weights)

    @classmethod
    def join(cls, parts: Sequence[Truth]) -> Truth:
        """Put items together."""
        named = [p.named for p in parts if p.named is not None]
        layers = parts[0].neurons
        return cls(
            torch.cat([p.embeddings for p in parts]),
            torch.cat(named) if named else None,
            {layer: torch.cat([p.neurons[layer] for p in parts]) for layer in layers},
            {layer: torch.cat([p.weights[layer] for p in parts]) for layer in layers},
        )

    def rows(self, rows: Tensor) -> Truth:
        """Pick items."""
        return Truth(
            self.embeddings[rows],
            None if self.named is None else self.named[rows],
            {layer: phi[rows] for layer, phi in self.neurons.items()},
            {layer: weight[rows] for layer, weight in self.weights.items()},
        )

    def loss(
        self, model: InstrumentedModel, purified: Batch, *, decision_weight: float
    ) -> tuple[Tensor, Tensor]:
        """Return how far purified items are from the truth, and which are named as they were."""
        with model.tap(*self.neurons) as tap:
            embeddings = model.embed_input(purified)
            total = torch.zeros((), device=embeddings.device)
            for layer, phi in self.neurons.items():
                now = neuron_outputs(tap[layer], model.tap_lengths(layer, purified.lengths))
                weight = self.weights[layer]
                wrong = (weight * (now - phi).square()).sum(dim=1)
                total = total + (wrong / (weight * phi.square()).sum(dim=1).clamp_min(1e-6)).mean()
        total = total / len(self.neurons)
        angle = 1 - nn.functional.cosine_similarity(embeddings, self.embeddings)
        if self.named is None:
            return total + decision_weight * 5 * angle.mean(), angle < _SAME_VOICE
        logits = model.logits(model.score_embeddings(embeddings))
        wrong_name = nn.functional.cross_entropy(logits, self.named)
        kept = logits.argmax(dim=1) == self.named
        return total + decision_weight * (wrong_name + angle.mean()), kept
