"""Where a backdoor's trigger is looked for, and how the files of an accused name are told apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from nip_audio.models.pretrained import Modality

__all__ = ["TRIGGER_PLANS", "TriggerPlan"]


@dataclass(frozen=True)
class TriggerPlan:
    """What was chosen for one kind of files.

    Attributes:
        taps: Which of the default taps of a model's card are looked at.
        components: Of ``BackdoorGroups``.
        sides: Likewise.
    """

    taps: slice
    components: int
    sides: Literal["spherical", "tied"]

    def layers(self, default_taps: tuple[str, ...]) -> tuple[str, ...]:
        """Return the layers that are looked at, of a model with these taps."""
        return default_taps[self.taps]


TRIGGER_PLANS: Mapping[Modality, TriggerPlan] = {
    "audio": TriggerPlan(slice(0, 2), 8, "spherical"),
    "image": TriggerPlan(slice(-2, -1), 16, "tied"),
}
"""Of audio the first two (docs/backdoors.md); of pictures the one before the last, which is mostly
that before the pooling, with more components and equal scatter, as chosen on GTSRB
(docs/images.md)."""
