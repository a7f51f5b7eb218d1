"""Class neurons: keep the neurons that the predicted class uses, and silence the others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from nip_audio.core.adapter import Batch
from nip_audio.core.influence import neuron_outputs
from nip_audio.core.model import InstrumentedModel
from nip_audio.core.state import State, load_state, save_state
from nip_audio.errors import InputError
from nip_audio.purifiers._checks import check_number
from nip_audio.purifiers.layer_defence import Change, LayerDefence

__all__ = ["ClassNeurons"]

_KIND = "neuron selection"


class ClassNeurons(LayerDefence):
    """Keep the neurons that the predicted class uses; stands in for neuron selecting (NS).

    The paper on neuron-level inverse perturbation (NIP, Sec. 2.2.2 and Table I) says: NS goes
    through all neurons and selects them "according to activation values for each class"; the
    activations of the others are set to zero; it needs neither adversarial examples nor retraining,
    and depends on the class.

    Deviation: this class is built from that description, without the NS paper. Everything else is
    an assumption:

    - A neuron of a feature map is a channel, and its activation value is φ (NIP, Eq. 1).
    - In each layer a class selects the ``share`` of neurons with the largest mean |φ| over benign
      items; after a ReLU this is the mean value itself.
    - Benign items belong to the class that the model predicts, so that fitting needs no labels. A
      class that is never predicted selects all neurons.
    - At test time the class is the prediction of the undefended model. For an adversarial example
      this is the class that the attacker chose: the neurons that this class does not normally
      use are then silenced.

    The choice has no gradient; given the choice, the model is differentiable.

    Args:
        selected: Masks of the neurons that each class selects, by layer, (C, N) bool each.
        labels: Names of the C classes.
        share: Share of the neurons of a layer that a class selects.
        seen: Content hashes (``Audio.content_sha256``) of everything it was fitted on.

    Raises:
        InputError: If no layer is given, or ``share`` is out of range.
    """

    def __init__(
        self,
        selected: Mapping[str, Tensor],
        *,
        labels: Sequence[str],
        share: float,
        seen: Iterable[str] = (),
    ) -> None:
        check_number("share", share, 0.01, 1.0, usual=0.9)
        if not selected:
            raise InputError("no layers were given, expected at least one; use ClassNeurons.fit")
        self.layers = tuple(selected)
        self.selected = dict(selected)
        self.labels = tuple(labels)
        self.share = share
        self._seen = frozenset(seen)

    @classmethod
    @torch.no_grad()
    def fit(
        cls,
        model: InstrumentedModel,
        batches: Iterable[Batch],
        *,
        layers: Sequence[str],
        share: float = 0.9,
        seen: Iterable[str] = (),
    ) -> Self:
        """Select the neurons of each class on benign items.

        Args:
            model: Model with a head and labels, whose classes select neurons.
            batches: Benign model input, without labels.
            layers: Names of the layers.
            share: Share of the neurons of a layer that a class selects; at least one neuron is.
            seen: Content hashes (``Audio.content_sha256``) of the items.

        Raises:
            InputError: If the model has no head or no labels, there are no batches, or ``share``
                is out of range.
            LayerNotFoundError: If a layer does not exist; the message lists similar names.
        """
        check_number("share", share, 0.01, 1.0, usual=0.9)
        _require_classes(model)
        used: dict[str, Tensor] = {}
        named = torch.zeros(len(model.labels), dtype=torch.float64)
        for batch in batches:
            with model.tap(*layers) as tap:
                scores = model.score_embeddings(model.embed_input(batch))
                classes = torch.nn.functional.one_hot(scores.argmax(dim=1), len(named)).double()
            named += classes.sum(dim=0).cpu()
            for layer in layers:
                phi = neuron_outputs(tap[layer], model.tap_lengths(layer, batch.lengths))
                used[layer] = used.get(layer, 0.0) + (classes.T @ phi.abs().double()).cpu()
        if not used:
            raise InputError(
                "got no batches or no layers, expected at least one of each; pass benign model "
                "input and the names of layers"
            )
        # sums rank the neurons in the same order as means
        selected = {layer: _largest(total, share) for layer, total in used.items()}
        for chosen in selected.values():
            chosen[named == 0] = True
        return cls(selected, labels=model.labels, share=share, seen=seen)

    @property
    def name(self) -> str:
        """Name with the share and the layers."""
        return f"class neurons {self.share:.0%} {self.where}"

    @property
    def seen(self) -> frozenset[str]:
        """Content hashes of everything the selection was fitted on."""
        return self._seen

    def settings(self) -> dict[str, Any]:
        """Return the share, the layers and a hash that identifies the selection."""
        digest = hashlib.sha256()
        for layer in self.layers:
            digest.update(self.selected[layer].cpu().contiguous().numpy().data)
        return {
            "name": "class-neurons",
            "share": self.share,
            "layers": list(self.layers),
            "selected_sha256": digest.hexdigest(),
        }

    def check(self, model: InstrumentedModel) -> None:
        """Check that a model has the classes that neurons were selected for.

        Raises:
            InputError: If the model has other classes, or no head.
            LayerNotFoundError: If a layer is not a module of the model's network.
        """
        super().check(model)
        _require_classes(model)
        if model.labels != self.labels:
            raise InputError(
                f"the model has {len(model.labels)} classes, {', '.join(model.labels[:3])} …, "
                f"the neurons were selected for {len(self.labels)}, "
                f"{', '.join(self.labels[:3])} …; fit it to the model with this head"
            )

    def prepare(
        self, model: InstrumentedModel, batch: Batch, *, generator: torch.Generator
    ) -> Change:
        """Silence the neurons that the class predicted by the undefended model did not select."""
        with torch.no_grad():
            named = model.score_embeddings(model.embed_input(batch)).argmax(dim=1)

        def change(layer: str, activation: Tensor, lengths: Tensor | None) -> Tensor:
            selected = self.selected[layer].to(activation)
            if selected.shape[1] != activation.shape[1]:
                raise InputError(
                    f"layer {layer!r} has {activation.shape[1]} neurons, expected "
                    f"{selected.shape[1]} as in the model that it was fitted to; fit it to this "
                    "model"
                )
            chosen = selected[named]
            return activation * chosen.reshape(*chosen.shape, *[1] * (activation.dim() - 2))

        return change

    def save(self, path: Path | str, *, model_id: str, force: bool = False) -> None:
        """Write the selection atomically, bound to the model's identity.

        Raises:
            OutputError: If the file exists and ``force`` is false, or it cannot be written.
        """
        meta = {
            "layers": list(self.layers),
            "labels": list(self.labels),
            "share": self.share,
            "seen": sorted(self.seen),
        }
        save_state(Path(path), State(_KIND, model_id, self.selected, meta), force=force)

    @classmethod
    def load(cls, path: Path | str, *, model_id: str | None = None) -> Self:
        """Load a selection that ``save`` wrote.

        Args:
            path: Path of the file.
            model_id: Identity of the model it was fitted to; None skips the comparison.

        Raises:
            StateError: If the file holds no selection, or one of another model.
            HashMismatchError: If the file was modified after it was saved.
        """
        state = load_state(Path(path), kind=_KIND, model_id=model_id)
        meta = state.meta
        selected = {layer: state.tensors[layer] for layer in meta["layers"]}
        return cls(selected, labels=meta["labels"], share=meta["share"], seen=meta["seen"])


def _largest(values: Tensor, share: float) -> Tensor:
    """Mark the largest ``share`` of the values of each row, (C, N) bool; ties go to the first."""
    count = max(1, round(share * values.shape[1]))
    order = values.argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(values, dtype=torch.bool).scatter_(1, order, True)


def _require_classes(model: InstrumentedModel) -> None:
    if model.head is None or not model.labels:
        raise InputError(
            "this model predicts no classes, expected a head with labels: each class selects its "
            "own neurons; use with_head(CosineHead(voices), labels=speakers)"
        )
