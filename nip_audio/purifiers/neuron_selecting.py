"""NS: of a class's neurons let those work that the class uses, and silence the others."""

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

__all__ = ["NeuronSelecting"]

_KIND = "neuron selection"


class NeuronSelecting(LayerDefence):
    """Neuron selecting (NS; M. Zhang et al., ICICS 2019), as far as the NIP paper tells of it.

    That paper says (Sec. 2.2.2 and Table I): NS goes through all neurons and selects them
    "according to activation values for each class"; others' activations are set to zero; it needs
    neither adversarial examples nor retraining, and does depend on the class.

    Deviation: it is built from that description, without the NS paper; everything else is assumed:

    - A neuron of a feature map is a channel, its activation value φ (NIP, Eq. 1).
    - A class selects in each layer the ``share`` of the neurons whose |φ| is largest on average
      over benign items; behind a ReLU that is the value itself.
    - Benign items belong to the class that the model names, so that fitting needs no labels either.
      A class that was never named selects all neurons.
    - At test time the class is the one that the undefended model names. That of an adversarial
      example is the attacker's: what NS then silences are the neurons that the example should not
      have needed.

    The choice has no gradient; given the choice, the model is differentiable.

    Args:
        selected: By layer: (C, N) bool, which neurons each class selects.
        labels: Names of the C classes.
        share: Of the neurons of a layer that a class selects.
        seen: ``Audio.content_sha256`` of everything it was fitted on.

    Raises:
        InputError: If no layer is given, or the share makes no sense.
    """

    def __init__(
        self,
        selected: Mapping[str, Tensor],
        *,
        labels: Sequence[str],
        share: float,
        seen: Iterable[str] = (),
    ) -> None:
        """See the class."""
        check_number("share", share, 0.01, 1.0, usual=0.9)
        if not selected:
            raise InputError("no layers were given, expected one or more; use NeuronSelecting.fit")
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
        """Select each class's neurons.

        Args:
            model: With the head whose classes select.
            batches: Benign model input, without labels.
            layers: Names of the layers.
            share: Of the neurons of a layer that a class selects; at least one.
            seen: ``Audio.content_sha256`` of the items.

        Raises:
            InputError: If the model has no head or no names of its classes, there are no batches,
                or the share makes no sense.
            LayerNotFoundError: With near matches.
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
            raise InputError("got no batches or layers, expected benign model input; give it some")
        # a sum ranks neurons as the mean does
        selected = {layer: _largest(total, share) for layer, total in used.items()}
        for chosen in selected.values():
            chosen[named == 0] = True
        return cls(selected, labels=model.labels, share=share, seen=seen)

    @property
    def name(self) -> str:
        """Name with share and layers."""
        return f"NS {self.share:.0%} {self.where}"

    @property
    def seen(self) -> frozenset[str]:
        """What it was fitted on."""
        return self._seen

    def settings(self) -> dict[str, Any]:
        """Return share and layers, and what tells the selection from others."""
        digest = hashlib.sha256()
        for layer in self.layers:
            digest.update(self.selected[layer].cpu().contiguous().numpy().data)
        return {
            "name": "ns",
            "share": self.share,
            "layers": list(self.layers),
            "selected_sha256": digest.hexdigest(),
        }

    def check(self, model: InstrumentedModel) -> None:
        """Refuse a model of other classes than those that selected.

        Raises:
            InputError: Then, or if it has no head.
            LayerNotFoundError: If a layer is no module of its network.
        """
        super().check(model)
        _require_classes(model)
        if model.labels != self.labels:
            raise InputError(
                f"the model names {len(model.labels)} classes, {', '.join(model.labels[:3])} …, "
                f"the neurons were selected for {len(self.labels)}, "
                f"{', '.join(self.labels[:3])} …; fit NS to the model with this head"
            )

    def prepare(
        self, model: InstrumentedModel, batch: Batch, *, generator: torch.Generator
    ) -> Change:
        """Silence what the class that the undefended model names has not selected."""
        with torch.no_grad():
            named = model.score_embeddings(model.embed_input(batch)).argmax(dim=1)

        def change(layer: str, activation: Tensor, lengths: Tensor | None) -> Tensor:
            selected = self.selected[layer].to(activation)
            if selected.shape[1] != activation.shape[1]:
                raise InputError(
                    f"layer {layer!r} has {activation.shape[1]} neurons, expected the "
                    f"{selected.shape[1]} that were selected from; fit NS to this model"
                )
            chosen = selected[named]
            return activation * chosen.reshape(*chosen.shape, *[1] * (activation.dim() - 2))

        return change

    def save(self, path: Path | str, *, model_id: str, force: bool = False) -> None:
        """Write atomically, bound to the model's identity.

        Raises:
            OutputError: As ``save_state``.
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
        """Read what ``save`` wrote.

        Args:
            path: The file.
            model_id: Identity of the model it was fitted to; None skips the comparison.

        Raises:
            StateError: If it is no selection, or another model's.
            HashMismatchError: If the file was changed.
        """
        state = load_state(Path(path), kind=_KIND, model_id=model_id)
        meta = state.meta
        selected = {layer: state.tensors[layer] for layer in meta["layers"]}
        return cls(selected, labels=meta["labels"], share=meta["share"], seen=meta["seen"])


def _largest(values: Tensor, share: float) -> Tensor:
    """Which values of each row are among the largest: (C, N) bool; ties go to the first."""
    count = max(1, round(share * values.shape[1]))
    order = values.argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(values, dtype=torch.bool).scatter_(1, order, True)


def _require_classes(model: InstrumentedModel) -> None:
    if model.head is None or not model.labels:
        raise InputError(
            "this model names no classes, expected a head with labels: each class selects its own "
            "neurons; use with_head(CosineHead(voices), labels=speakers)"
        )
