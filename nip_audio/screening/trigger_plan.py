"""Where in a network a backdoor's trigger is looked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nip_audio.models.cards import Modality

__all__ = ["TRIGGER_PLANS", "TriggerPlan"]


@dataclass(frozen=True)
class TriggerPlan:
    """What was chosen for one kind of files.

    Attributes:
        changes: At which of the default taps of a model's card neurons' changes are looked at.
        outputs: At which their outputs are.
    """

    changes: slice
    outputs: slice

    def layers(self, default_taps: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return where changes and where outputs are looked at; of few taps the first."""
        first = default_taps[:1]
        return default_taps[self.changes] or first, default_taps[self.outputs] or first


TRIGGER_PLANS: Mapping[Modality, TriggerPlan] = {
    "audio": TriggerPlan(slice(0, 2), slice(0, 2)),
    "image": TriggerPlan(slice(-2, -1), slice(-3, -2)),
}
"""Of audio the first two taps (docs/backdoors.md); of pictures changes at the one before the last,
mostly that before the pooling, and outputs at the one before it (docs/images.md)."""
