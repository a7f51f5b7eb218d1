"""Few and quick lessons, so that a calibration with attacks takes seconds."""

from __future__ import annotations

from functools import partial

import pytest

from nip_audio.screening import learning
from nip_audio.screening.changes import CHANGES
from nip_audio.screening.lessons import AttackLesson
from nip_audio.workflows import calibrate
from nip_audio.workflows.fit_settings import GuidedFit

__all__ = ["FEW_ATTACKS", "FEW_CHANGES", "teach_little"]

FEW_CHANGES = ("none", "white", "8 kHz")

FEW_ATTACKS = (
    AttackLesson("pgd", "accept", (0.01, 0.02), {"steps": 1}),
    AttackLesson("fgsm", "reject", (0.01, 0.02), narrow=True, share=0.5),
)


def teach_little(patch: pytest.MonkeyPatch) -> None:
    """Leave few lessons, epochs and steps of training."""
    patch.setattr(learning, "CHANGES", {name: CHANGES[name] for name in FEW_CHANGES})
    patch.setattr(learning, "ATTACKS", FEW_ATTACKS)
    patch.setattr(learning, "_EPOCHS", 20)
    # one step moves a network of random weights little farther than harmless changes do
    patch.setattr(learning, "_MOVED", 0.0)
    quick = partial(GuidedFit, steps=2, crop_s=0.5, batch_size=2)
    patch.setattr(calibrate, "GuidedFit", quick)
