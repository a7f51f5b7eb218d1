"""Choose the layers of a network at which backdoor triggers are searched for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nip_audio.models.cards import Modality

__all__ = ["TRIGGER_PLANS", "TriggerPlan"]


@dataclass(frozen=True)
class TriggerPlan:
    """Layers for the models of one modality, as slices of the default taps of a model's card.

    Attributes:
        changes: Taps at which the changes of neurons under noise are measured.
        outputs: Taps at which the outputs of neurons without noise are measured.
    """

    changes: slice
    outputs: slice

    def layers(self, default_taps: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the layers for changes and those for outputs.

        A model with too few taps uses its first one for both.
        """
        first = default_taps[:1]
        return default_taps[self.changes] or first, default_taps[self.outputs] or first


TRIGGER_PLANS: Mapping[Modality, TriggerPlan] = {
    "audio": TriggerPlan(slice(0, 2), slice(0, 2)),
    "image": TriggerPlan(slice(-2, -1), slice(-3, -2)),
}
"""Audio models use the first two taps (docs/results/backdoors.md). Image models use the
second-to-last tap for changes, mostly the one before the pooling, and the tap before it for outputs
(docs/results/images.md)."""
